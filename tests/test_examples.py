"""Every example of the guide runs as it is."""

import re
import shutil

import pytest

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
