"""Whatever ends a run, a fault of the disk or a signal in any of its stages, nothing that was saved is lost."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from ranker import signals
from ranker.cli import train as cli
from ranker.config import load_config
from ranker.errors import InterruptedRunError, OutputError, RankerError
from ranker.training.resume import damage
from ranker.training.train import train
from tests.conftest import ROOT
from tests.support.selection import cases
from tests.training.test_interrupts import settings

MOST = 50
"""Write points of a run, at most."""


class Disk:
    """Fails the ``at``-th write into ``folder``; counts them all."""

    def __init__(self):
        self.folder, self.at, self.count = None, 0, 0

    @contextmanager
    def failing(self, folder, at):
        self.folder, self.at, self.count = str(folder), at, 0
        try:
            yield
        finally:
            self.folder = None

    def touched(self, path):
        if self.folder is None or not str(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.at:
            raise OSError(28, os.strerror(28))


DISK = Disk()


def _audit(event, arguments):
    if DISK.folder is None:
        return
    if event == "open" and isinstance(arguments[0], str | os.PathLike) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        DISK.touched(arguments[0])
    elif event == "os.rename" or (event == "os.mkdir" and not os.path.isdir(arguments[0])):
        DISK.touched(os.fspath(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hooked():
    sys.addaudithook(_audit)  # hooks stay; this one sleeps outside of a test


@pytest.fixture
def disk(monkeypatch):
    """Writes of Python are seen by an audit hook, those of torch and safetensors here."""
    import safetensors.torch

    for module, name in ((torch, "save"), (safetensors.torch, "save_file")):
        write = getattr(module, name)

        def checked(content, file, *args, write=write, **kwargs):
            DISK.touched(file)
            return write(content, file, *args, **kwargs)

        monkeypatch.setattr(module, name, checked)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", safetensors.torch.save_file)
    return DISK


def config_of(backbone, output):
    more = ("data.max_train_samples=12", "training.eval_steps=0.5", "training.save_steps=1")
    return load_config("pairrm", settings(backbone, output, *more))


@pytest.fixture(scope="module")
def whole(tiny_backbone, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    train(config_of(tiny_backbone, output))
    return load_file(output / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("at", cases(list(range(1, MOST + 1)), lambda at: at % 12 == 5))
def test_a_write_that_fails_leaves_what_was_saved(at, whole, tiny_backbone, tmp_path, disk):
    config = config_of(tiny_backbone, tmp_path / "run")
    error = None
    try:
        with disk.failing(tmp_path / "run", at):
            train(config)
    except OSError as caught:
        error = caught
    assert (error is None) == (disk.count < at), "every write that fails ends the run"
    if isinstance(error, OutputError):
        assert "cannot be written (No space left on device)" in str(error)
    else:
        assert error is None or error.errno == 28
    saved = list((tmp_path / "run" / "steps").glob("checkpoint-*"))
    assert [damage(folder) for folder in saved] == [None] * len(saved), "no half checkpoint has its name"
    ended = (tmp_path / "run" / "steps" / "end.json").exists()
    train(config, resume=bool(saved) or ended, overwrite=not (saved or ended))
    again = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    left = [path.name for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]
    assert left == []


@pytest.mark.full
def test_a_disk_that_is_full_is_said_with_the_checkpoint_that_is_there(tiny_backbone, tmp_path, unended):
    """A real file system without room: the older checkpoint stays whole, one line says what to do."""
    train(config_of(tiny_backbone, tmp_path / "first"))
    checkpoint = next((tmp_path / "first" / "steps").glob("checkpoint-*"))
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(2.4 * size)}", "tmpfs", small], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        command = [sys.executable, "-m", "ranker", "train", "pairrm"]
        more = ("training.eval_steps=100000", "training.save_steps=2", "training.num_train_epochs=3")
        overrides = settings(tiny_backbone, small / "run", *more)
        done = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True)
        saved = sorted((small / "run" / "steps").glob("checkpoint-*"))
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert "cannot be written" in last
        assert f"{saved[-1]} is whole. Make room, then continue with: ranker train pairrm" in last
        assert damage(saved[-1]) is None
        assert not list((small / "run" / "steps").glob(".*")), "what was half written gave its room back"
    finally:
        subprocess.run(["umount", small], check=True)


STAGES = {
    "evaluation": "ranker.evaluation.evaluate.order_effects",
    "report": "ranker.evaluation.report.writer.write",
    "graph": "ranker.export.graph.to_onnx",
    "parity": "ranker.export.parity.compare",
    "int8 search": "ranker.export.quantize.Quantizer.write",
    "speed": "ranker.export.speed._seconds",
}


@pytest.mark.parametrize("stage", cases(list(STAGES), lambda stage: stage == "evaluation"))
def test_a_signal_after_the_training_keeps_the_model_and_names_the_command(stage, tiny_backbone, tmp_path, monkeypatch):
    signals.forget()
    before = {number: signal.signal(number, signals.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    overrides = settings(tiny_backbone, tmp_path / "run", "data.max_train_samples=12", "export.precisions=[fp32,int8]")
    config = load_config("pairrm", overrides)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(STAGES[stage], lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
            with pytest.raises(InterruptedRunError) as caught:
                cli.run(config, "ranker train pairrm --resume")
    finally:
        signals.forget()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert caught.value.exit_code == 130
    message = str(caught.value)
    assert f"stopped after the training; the model is in {tmp_path / 'run' / 'checkpoint'}" in message
    assert "continue with: ranker train pairrm --resume" in message
    assert [path.name for path in (tmp_path / "run").glob(".*") if path.name != ".lock"] == []
    weights = (tmp_path / "run" / "checkpoint" / "model.safetensors").read_bytes()
    cli.run(config, "", resume=True)
    assert {"report.html", "model.onnx"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").read_bytes() == weights


@pytest.mark.full
def test_files_have_the_mode_of_the_umask(tiny_backbone, tmp_path):
    overrides = settings(tiny_backbone, tmp_path / "run", "data.max_train_samples=12", "export.precisions=[fp32]")
    before = os.umask(0o027)
    try:
        cli.run(load_config("pairrm", overrides), "")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "run").rglob("*")
        if path.name != ".lock"
    }
    wrong = {name: mode for name, mode in modes.items() if mode != oct(0o750 if (tmp_path / name).is_dir() else 0o640)}
    assert wrong == {}


def test_a_lock_that_a_kill_left_hinders_nobody(tiny_backbone, tmp_path):
    config = config_of(tiny_backbone, tmp_path)
    (tmp_path / ".lock").write_text("")
    train(config)
    shutil.rmtree(tmp_path / "checkpoint")
    with pytest.raises(RankerError, match="its weights are not those|expected checkpoints"):
        train(config, resume=True)


def test_a_signal_after_the_last_file_says_that_all_are_there(tiny_backbone, tmp_path, monkeypatch, capsys):
    def interrupted(result):
        yield "a table of the run"
        raise signals.Stopped(signal.SIGTERM)

    monkeypatch.setattr(cli, "summary", interrupted)
    monkeypatch.setattr("ranker.api.training.train", lambda *args, **kwargs: None)
    config = load_config("pairrm", settings(tiny_backbone, tmp_path / "run"))
    with pytest.raises(InterruptedRunError, match="stopped after the run; all of its files are in") as caught:
        cli.run(config, "ranker train pairrm --resume")
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert "a table of the run" in capsys.readouterr().out
