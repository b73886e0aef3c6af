"""The documents that are generated say what the code says."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

import ranker
from ranker import errors
from ranker.batch_scorer import RESULTS
from ranker.config import load_config, recipes
from ranker.data.formats import CANDIDATES, PROMPTS, SINGLE, SYSTEM
from ranker.data.readers import COMPRESSED, ENDINGS
from tests.conftest import ROOT
from tests.references.peers.produced import CROSS_ENCODERS, PEERS
from tests.references.producers import PRODUCERS
from tests.references.rerankers import RERANKERS


def script(name):
    """A script of the folder ``docs``, which finds the modules beside it."""
    if str(ROOT / "docs") not in sys.path:
        sys.path.append(str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


schemes = script("schemes")
compatibility = script("compatibility")


def test_the_table_of_schemes_is_the_recipes():
    assert (ROOT / "docs" / "schemes.md").read_text() == schemes.document(), "run: make docs"


def test_the_page_of_compatibility_shows_what_was_compared_and_every_row_was_equal():
    assert (ROOT / "docs" / "compatibility.md").read_text() == compatibility.document(), "run: make docs"
    figures = json.loads(compatibility.FIGURES.read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert set(rows) == {
        *PEERS,
        *CROSS_ENCODERS,
        *PRODUCERS,
        *RERANKERS,
        compatibility.JUDGE,
        *compatibility.SCHEMES.values(),
    }, "run: python docs/compatibility.py --record"
    assert all(row["equal"] == row["n"] > 0 for row in rows.values())
    assert figures["ids"]["equal"] == figures["ids"]["rows"] >= 72 * 4 * 40


def test_the_table_of_datasets_is_the_code_s():
    guide = (ROOT / "docs" / "training.md").read_text()
    assert guide == schemes.with_datasets(guide), "run: make docs"


def test_the_results_of_all_schemes_are_those_of_the_slow_tests():
    results = (ROOT / "docs" / "results.md").read_text()
    assert results == schemes.with_figures(results), "run: make docs"
    assert all(f"| `{name}` |" in results for name in recipes())


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_what_it_is_and_how_to_launch_it(name):
    fields = schemes.header(name)
    assert set(schemes.FIELDS) <= set(fields)
    text = (schemes.RECIPES / f"{name}.yaml").read_text()
    for place in ("one GPU", "several GPUs"):
        assert f"#   {place}" in text
    assert f"ranker train {name}" in text
    assert load_config(name).output_dir == f"runs/{name}"


def test_the_schemes_of_the_field_are_all_there():
    named = " ".join(schemes.header(name)["Scheme"] for name in recipes())
    for scheme in (
        "CLS classification",
        "pooled classification",
        "scalar regression",
        "paired input",
        "accept/reject",
        "scalar MSE",
        "log-sigmoid",
        "log-exp",
        "token-level pairwise",
        "regressed and gated",
        "answers A or B",
        "ranked lists",
    ):
        assert scheme in named


def test_the_page_of_settings_is_the_configuration():
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (ROOT / "docs" / "settings.md").read_text() == page.document(), "run: make docs"


@pytest.mark.full
def test_the_loss_of_the_training_guide_trains(long_backbone, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ranker.models.build.offline_backbone", lambda: str(long_backbone))
    exec(compile(code, "training.md", "exec"), {"__name__": "example"})
    assert "TrainResult(checkpoint='runs/hinge/checkpoint'" in capsys.readouterr().out


def test_the_exit_codes_of_the_guide_are_those_of_the_errors():
    page = (ROOT / "docs" / "rows.md").read_text()
    table = page.split("| exit code | what is wrong |\n|---|---|\n")[1].split("\n\n")[0]
    shown = {int(code) for line in table.splitlines() for code in line.split("|")[1].split(",")}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert shown == {cls.exit_code for cls in classes if hasattr(cls, "exit_code")} | {130, 143}


def test_the_kinds_of_files_of_the_guide_are_those_that_are_read():
    page = (ROOT / "docs" / "rows.md").read_text()
    assert not [ending for ending in (*ENDINGS, *COMPRESSED) if f"`{ending}`" not in page]
    assert not [name for name in (*PROMPTS, *CANDIDATES, *SINGLE, *SYSTEM, *RESULTS) if f"`{name}`" not in page]


def test_the_row_of_the_guide_comes_out_with_the_columns_that_it_shows(model, tmp_path):
    page = (ROOT / "docs" / "rows.md").read_text()
    row, shown = re.search(r"echo '(.+)' \|", page)[1], re.search(r"```json\n(.+)\n```", page)[1]
    (tmp_path / "rows.jsonl").write_text(row)
    ranker.score_file(model, tmp_path / "rows.jsonl", tmp_path / "scored.jsonl")
    written = json.loads((tmp_path / "scored.jsonl").read_text())
    assert list(written) == list(json.loads(shown))
    assert {name: written[name] for name in json.loads(row)} == json.loads(row)


def test_the_page_of_commands_is_the_help_s():
    assert (ROOT / "docs" / "commands.md").read_text() == script("commands").document(), "run: make docs"


ERRORS = (ROOT / "docs" / "errors.md").read_text()


def test_the_page_of_errors_has_every_error_with_its_exit_code():
    rows = re.findall(r"^\| (\d+)[^|]*\| ([^|]*) \|", ERRORS.partition("## ")[0], re.MULTILINE)
    listed = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    classes = {
        name: item
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, errors.RankerError)
    }
    assert set(classes) - {"RankerError"} == set(listed) - {"InterruptedRunError", "TrainingStopped"}
    assert all(classes[name].exit_code == code for name, code in listed.items() if name in classes)


def test_the_messages_on_the_page_of_errors_are_the_code_s():
    folders = [ROOT / "ranker", ROOT / "export"]
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    quoted = re.findall(r"^\| `([^`]+)`", ERRORS, re.MULTILINE)
    assert len(quoted) > 15
    for line in quoted:
        if line != "No space left on device":
            words = [
                part
                for part in re.split(r"\.\.\.|'[^']*'|\S*-\d+|\b[NM]\b|[:;]|\S+\.jsonl|int8 ", line)
                if len(part.strip()) > 11
            ]
            assert any(part.strip() in code for part in words), line


@pytest.mark.full
def test_every_page_is_in_the_site_and_its_links_lead_somewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.findall(
        r'(?:src|href)="https?://(?!github\.com|ranker-toolkit\.github\.io|squidfunk)[^"]+\.(?:js|css)', page
    )


def test_the_table_of_environments_is_that_of_the_record():
    assert (ROOT / "docs" / "install.md").read_text() == script("environments").document(), "run: make docs"


@pytest.mark.parametrize("path", script("figures").PAGES, ids=lambda path: path.name)
def test_the_figures_of_a_page_are_those_of_the_files(path):
    assert path.read_text() == script("figures").written(path.read_text()), "run: make docs"
    assert "<!-- figure: " in path.read_text()
