import importlib.metadata
import subprocess
import sys

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


WITHOUT_TORCH = "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'safetensors', 'peft', 'onnx']); "


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "pairrm", "--offline", "output_dir=OUT"],
        ["train", "pairrm", "--offline", "--dry-run"],
        ["merge", "A", "B"],
        ["export", "A", "-o", "B.onnx"],
        ["inspect", "A"],
        ["verify", "A"],
        ["convert", "A", "B", "--to", "transformers"],
        ["eval", "A", "--data", "sample:test", "-o", "B"],
    ],
    ids=lambda arguments: " ".join(arguments[:4:3]),
)
def test_commands_say_which_extra_they_lack(arguments, tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "config.json").write_text("{}")
    code = f"{WITHOUT_TORCH} sys.argv = ['ranker', *{arguments}]; from ranker.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "is not installed; run: pip install 'ranker-toolkit[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "ranker.train('pairrm', model='offline', data='sample:train', output_dir='OUT')",
        "ranker.merge_adapter('A', 'B')",
        "ranker.ComparisonLoss",
        "ranker.load('A')",
        "ranker.export_onnx('A', 'B.onnx')",
    ],
)
def test_functions_say_which_extra_they_lack(call, tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_TORCH} import ranker; {call}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "MissingExtraError" in done.stderr.splitlines()[-1], done.stderr
