"""The README's first screen runs, and names what exists."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
TRAINED = "runs/pairrm/model.onnx"


def run_block(model):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


@pytest.mark.skipif(not (ROOT / TRAINED).exists(), reason="needs make train-pairrm")
def test_the_python_block_prints_what_the_readme_shows():
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert run_block(ROOT / TRAINED) == shown


def test_commands_and_links_exist():
    from typer.main import get_command

    from ranker.cli.main import app

    verbs = set(get_command(app).commands)
    assert set(re.findall(r"ranker (\w+) ", README)) <= verbs
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
