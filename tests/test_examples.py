"""Every example of the guide and of the folder of examples runs as it is."""

import asyncio
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import yaml
from datasets import Dataset

import ranker
from tests.conftest import ROOT
from tests.support.selection import cases

GUIDE = (ROOT / "docs" / "in-the-loop.md").read_text()
SECTIONS = [
    (title, code)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    for code in re.findall(r"```python\n(.*?)```", body, re.DOTALL)
]


def test_examples_are_short():
    assert len(SECTIONS) >= 11
    assert all(len(code.splitlines()) < 30 for _, code in SECTIONS)


@pytest.mark.parametrize(
    ("title", "code"),
    cases(SECTIONS, lambda section: "Ray" not in section[0]),
    ids=[title for title, _ in SECTIONS],
)
def test_an_example_runs(model, pointwise, tmp_path, monkeypatch, capsys, title, code):
    shutil.copy(model, tmp_path / "model.onnx")
    shutil.copy(pointwise, tmp_path / "pointwise.onnx")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, title, "exec"), {"__name__": "example"})
    if "print(" in code:
        assert capsys.readouterr().out.strip()


EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
PEERS = ROOT / "build" / "peers"


def example(folder, *command, **environment):
    """What an example prints that is started in ``folder``."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env | environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_listed():
    listed = re.findall(r"\]\(([\w./]+)\)", (EXAMPLES / "README.md").read_text())
    assert {EXAMPLES / path for path in listed} >= {
        *EXAMPLES.glob("*.py"),
        *NOTEBOOKS,
        *(path for path in EXAMPLES.iterdir() if path.is_dir() and path.name not in ("notebooks", "__pycache__")),
    }
    assert all((EXAMPLES / path).exists() for path in listed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_and_shows_nothing_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 40_000
    assert not re.search(r'"(?:/tmp|/root|/home|/work)/|Traceback', text)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 1
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "runs" / "pairrm").mkdir(parents=True)
    shutil.copy(model, tmp_path / "runs" / "pairrm" / "model.onnx")
    shutil.copytree(ROOT / "data", tmp_path / "data")
    loaded = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    notebooks = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(notebooks)
    book = notebooks.executed(path, tmp_path)
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")


@pytest.mark.full
def test_grpo_runs_on_both_kinds_of_model(model, pointwise, tmp_path):
    for path in (model, pointwise):
        printed = example(tmp_path, EXAMPLES / "trl_grpo.py", path, "--steps", "2")
        assert printed.count("mean reward") == 2


@pytest.mark.full
def test_a_pipeline_of_datatrove_keeps_what_scores_well(pointwise, tmp_path):
    for threshold, kept in ((-1000, 3), (1000, 0)):
        out = tmp_path / str(threshold) / "kept"
        example(tmp_path, EXAMPLES / "datatrove_filter.py", pointwise, "--output", out, "--threshold", threshold)
        assert sum(len(path.read_text().splitlines()) for path in out.glob("*.jsonl")) == kept


@pytest.mark.full
def test_ray_scores_every_row(model, tmp_path):
    rows = ROOT / "data" / "validation.jsonl"
    example(tmp_path, EXAMPLES / "ray_scores.py", model, rows, "--output", tmp_path / "scored")
    files = list((tmp_path / "scored").glob("*.json"))
    scored = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(scored) == len(rows.read_text().splitlines())
    assert all(row["ranker_scores"] for row in scored)


@pytest.mark.full
def test_reward_files_of_trainers_score(model, pointwise, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKER_MODEL", str(pointwise))
    function = runpy.run_path(str(EXAMPLES / "openrlhf" / "reward.py"))["reward_func"]
    assert len(function(queries=["Say hi: Hi!</s>"], prompts=["Say hi: "], labels=[None])["rewards"]) == 1
    monkeypatch.setenv("RANKER_MODEL", str(model))
    monkeypatch.setenv("ROLLOUTS", "2")
    compute_score = runpy.run_path(str(EXAMPLES / "verl" / "reward.py"))["compute_score"]
    rows = ROOT / "data" / "validation.jsonl"
    example(tmp_path, EXAMPLES / "verl" / "rows.py", rows, tmp_path / "rows.parquet")
    row = Dataset.from_parquet(str(tmp_path / "rows.parquet"))[0]

    async def rewards():
        calls = [compute_score(row["data_source"], answer, None, row["extra_info"]) for answer in ("Yes.", "No.")]
        return await asyncio.gather(*calls)

    expected = ranker.load(model).score(row["extra_info"]["prompt"], ["Yes.", "No."])
    assert asyncio.run(rewards()) == pytest.approx(expected.tolist(), abs=1e-5)


def settings_of(script, pattern):
    """The settings of a trainer's command."""
    return re.findall(pattern, (EXAMPLES / script).read_text(), re.MULTILINE)


@pytest.mark.full
@pytest.mark.skipif(not (PEERS / "verl" / ".ready").exists(), reason="needs make peers")
def test_verl_has_every_setting_of_its_command():
    (file,) = (PEERS / "verl").rglob("verl/trainer/config/_generated_ppo_trainer.yaml")
    known = yaml.safe_load(file.read_text())
    names = settings_of("verl/train.sh", r"^    ([a-z_.]+)=")
    assert len(names) > 15
    for name in names:
        place = known
        for part in name.split("."):
            assert part in place, name
            place = place[part]


@pytest.mark.full
@pytest.mark.skipif(not (PEERS / "openrlhf" / ".ready").exists(), reason="needs make peers")
def test_openrlhf_has_every_option_of_its_command():
    (file,) = (PEERS / "openrlhf").rglob("openrlhf/cli/train_ppo_ray.py")
    code = file.read_text()
    names = settings_of("openrlhf/train.sh", r"^    --((?!runtime-env)[a-z_.]+)")
    assert len(names) > 20
    for name in names:
        of_any_model = re.sub(r"^(actor|critic)\.", "{prefix}.", name)
        assert f'"--{name}"' in code or f'f"--{of_any_model}"' in code, name


@pytest.mark.parametrize("script", ["openrlhf/train.sh", "verl/train.sh"])
def test_a_command_of_a_trainer_is_a_script_that_bash_reads(script):
    assert subprocess.run(["bash", "-n", EXAMPLES / script], capture_output=True).stderr == b""
    assert os.access(EXAMPLES / script, os.X_OK)
