import importlib.metadata

import pytest

from ranker import extras
from ranker.errors import MissingExtraError, RankerError


def test_a_missing_extra_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setitem(extras.EXTRA_OF, "no_such_module", "cpu")
    with pytest.raises(
        MissingExtraError, match=r"^'no_such_module' is not installed; run: pip install 'ranker-toolkit\[cpu\]'$"
    ):
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
