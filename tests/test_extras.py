import importlib.metadata

import pytest

from ranker import extras
from ranker.errors import MissingExtraError, RankerError


@pytest.mark.parametrize(
    ("installed", "hint"),
    [
        (["index"], ""),
        (["folder"], r" \(in a checkout of the sources: pip install '\.\[cpu\]'\)"),
        (["index", "folder"], r" \(in a checkout of the sources: pip install '\.\[cpu\]'\)"),
        ([], r" \(in a checkout of the sources: pip install '\.\[cpu\]'\)"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_command(monkeypatch, tmp_path, installed, hint):
    folders = [tmp_path / origin / f"ranker_toolkit-{number}.dist-info" for number, origin in enumerate(installed)]
    for origin, folder in zip(installed, folders, strict=True):
        folder.mkdir(parents=True)
        if origin == "folder":
            (folder / "direct_url.json").write_text("{}")
    monkeypatch.setattr(
        importlib.metadata, "distributions", lambda **_: [importlib.metadata.Distribution.at(f) for f in folders]
    )
    monkeypatch.setitem(extras.EXTRA_OF, "no_such_module", "cpu")
    message = rf"^'no_such_module' is not installed; run: pip install 'ranker-toolkit\[cpu\]'{hint}$"
    with pytest.raises(MissingExtraError, match=message):
        extras.require("no_such_module")
    assert issubclass(MissingExtraError, RankerError)
    assert issubclass(MissingExtraError, ImportError)


def test_a_broken_dependency_of_an_installed_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import something_else_entirely\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_else_entirely") as caught:
        extras.require("half_installed")
    assert not isinstance(caught.value, MissingExtraError)


def test_both_onnxruntime_wheels_are_a_loud_word(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    assert "CUDA is silently lost" in extras.onnxruntime_conflict()

    def only_cpu(name):
        if name == "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(importlib.metadata, "version", only_cpu)
    assert extras.onnxruntime_conflict() is None


def test_the_offline_backbone_is_a_checkpoint_folder():
    from pathlib import Path

    assert Path(extras.offline_backbone(), "config.json").is_file()
