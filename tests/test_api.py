"""The public API: what is listed, its page, its examples, and the script that uses all of it."""

import doctest
import importlib.util
import inspect
import runpy
import shutil
import sys
import threading
import time

import pytest
import uvicorn

import ranker
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server
from tests.conftest import ROOT
from tests.support.selection import cases

spec = importlib.util.spec_from_file_location("api_page", ROOT / "docs" / "api.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)

EXCEPTIONS = [name for name in ranker.__all__ if name.endswith("Error")]
NAMES = [name for name in ranker.__all__ if name not in (*EXCEPTIONS, "__version__")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, model):
    """A folder as the page describes it: a model.onnx, its checkpoint, rows, and a backbone."""
    folder = tmp_path_factory.mktemp("api")
    shutil.copy(model, folder / "model.onnx")
    shutil.copytree(model.parent / "checkpoint", folder / "checkpoint")
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "validation.jsonl", folder / "data" / "rows.jsonl")
    (folder / "runs" / "pairrm").mkdir(parents=True)
    shutil.copy(model, folder / "runs" / "pairrm" / "model.onnx")
    return folder


def test_dir_lists_the_api_and_nothing_else():
    assert dir(ranker) == sorted(ranker.__all__)
    assert {"load", "train", "evaluate", "export_onnx", "convert", "inspect_checkpoint", "filter_files"} <= set(NAMES)


def test_the_page_has_every_public_name_once_and_is_up_to_date():
    listed = [name for names in page.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted([*NAMES, *EXCEPTIONS])
    assert (ROOT / "docs" / "api.md").read_text() == page.document().rstrip() + "\n", "run: make docs"


@pytest.mark.parametrize("name", [*NAMES, *EXCEPTIONS])
def test_every_public_name_explains_itself(name):
    item = getattr(ranker, name)
    assert len(inspect.getdoc(item) or "") > 20
    if inspect.isfunction(item):
        parameters = inspect.signature(item).parameters
        assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
        described = inspect.getdoc(item).partition("Args:")[2]
        named = {n.strip() for line in described.splitlines() for n in line.partition(":")[0].split(",")}
        refers = "arguments as in" in inspect.getdoc(item)
        assert refers or set(parameters) <= named, set(parameters) - named


def doctests():
    finder = doctest.DocTestFinder(recurse=True)
    for name in NAMES:
        for test in finder.find(getattr(ranker, name), name):
            if test.examples:
                yield test


@pytest.fixture(scope="module")
def served(workplace):
    """The address of a server of the page's model."""
    server = Server(ranker.load(workplace / "model.onnx").scorer, "model.onnx", Limits())
    running = uvicorn.Server(
        uvicorn.Config(application(server, Keys([])), host="127.0.0.1", port=0, log_level="warning")
    )
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(10)


SLOW = ("train", "export_onnx", "ParityReport", "EvaluationReport.to_pandas", "EvaluationReport")
"""Examples that export or evaluate once more what another example of the page does."""


@pytest.mark.parametrize("test", cases(doctests(), lambda test: test.name not in SLOW), ids=lambda test: test.name)
def test_the_examples_of_the_page_run(test, workplace, long_backbone, monkeypatch, request):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("ranker.models.build.offline_backbone", lambda: str(long_backbone))
    if "127.0.0.1:8000" in test.docstring:
        address = request.getfixturevalue("served")
        for example in test.examples:
            example.source = example.source.replace("http://127.0.0.1:8000", address)
    test.globs = {"ranker": ranker, "model": ranker.load("model.onnx"), **vars(ranker.records)}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    output = []
    assert doctest.DocTestRunner(optionflags=flags).run(test, out=output.append).failed == 0, "".join(output)


@pytest.mark.full
def test_the_example_script_runs_and_is_short(tmp_path, long_backbone, monkeypatch, capsys):
    script = ROOT / "examples" / "own_pairs.py"
    assert len(script.read_text().splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), str(long_backbone)])
    runpy.run_path(str(script), run_name="__main__")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "checkpoint",
        "order",
        "P(first is better)",
        "accuracy",
        "parity",
        "read",
    ]
    assert (tmp_path / "runs" / "own-pairs" / "evaluation" / "report.html").is_file()
    assert list((tmp_path / "runs" / "own-pairs" / "kept").glob("part-*"))
