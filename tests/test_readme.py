"""The README's first screen runs, and names what exists."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from pyarrow import parquet

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
HERE = "https://github.com/ranker-toolkit/ranker-toolkit/blob/main/"
PICTURES = "https://raw.githubusercontent.com/ranker-toolkit/ranker-toolkit/main/"
TRAINED = "runs/pairrm/model.onnx"


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_block(model, number=0):
    code = BLOCKS[number]
    assert TRAINED in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace(TRAINED, str(model))], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_block_runs(model):
    output = run_block(model)
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert [line.split(":")[0] for line in output.splitlines()] == [line.split(":")[0] for line in shown.splitlines()]


def test_the_training_block_trains_and_ranks(long_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1].replace('"offline"', repr(str(long_backbone))), "README.md", "exec"), {})
    output = capsys.readouterr().out
    assert re.match(r"[01]\.\d+ \[0\.\d+, [01]\.\d+\] \(n=\d+\)\n\[[12] [12]\]", output), output


def test_the_reward_block_runs(model):
    assert len(BLOCKS) == 3
    assert len(json.loads(run_block(model, 2))) == 3


def test_the_filter_commands_run(model, tmp_path):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    commands = [
        line[2:].partition("   #")[0]
        for line in README.splitlines()
        if line.startswith(("$ python -c", "$ ranker filter"))
    ]
    assert len(commands) == 3
    for command in commands:
        command = command.replace(TRAINED, str(model)).replace("python -c", f"{sys.executable} -c")
        command = command.replace("ranker filter", f"{sys.executable} -m ranker filter")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    kept = parquet.read_table(tmp_path / "kept" / "part-000000.parquet").to_pylist()
    assert 0 < len(kept) < 60
    assert all(row["best"] in row["candidates"] for row in kept)
    pairs = parquet.read_table(tmp_path / "pairs" / "part-000000.parquet").to_pylist()
    assert all(pair["margin"] > 0 for pair in pairs)


@pytest.mark.skipif(not (ROOT / TRAINED).exists(), reason="needs make train-pairrm")
def test_the_python_block_prints_what_the_readme_shows():
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert run_block(ROOT / TRAINED) == shown


def test_commands_and_links_exist():
    from typer.main import get_command

    from ranker.cli.main import app

    verbs = set(get_command(app).list_commands(None))
    assert set(re.findall(r"ranker (\w+) ", README)) <= verbs
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith((HERE, PICTURES)), "PyPI shows this page too, so its links are whole addresses"
        path, _, anchor = link.removeprefix(HERE).removeprefix(PICTURES).partition("#")
        assert (ROOT / path).exists(), link
        heads = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
