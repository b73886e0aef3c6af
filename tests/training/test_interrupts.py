"""A run that is stopped or started twice loses nothing, and says how to continue."""

import json
import re
import shlex
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import ranker
from ranker import atomic
from ranker.cli.main import app
from ranker.config import load_config
from ranker.errors import CheckpointError, ConfigError, JobError
from ranker.training import resume
from ranker.training.interrupts import StopRequest, TrainingStopped
from ranker.training.resume import newest_whole, only_run
from ranker.training.train import train
from ranker.training.trainer import RankerTrainer
from tests.conftest import ROOT
from tests.support.processes import ranker_until
from tests.support.selection import cases


def settings(backbone, output, *overrides):
    return [
        f"output_dir={output}",
        f"model.name_or_path={backbone}",
        "model.max_length=64",
        "model.prompt_reserve=16",
        f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
        f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
        "data.test=[]",
        "data.max_train_samples=60",
        "data.max_eval_samples=4",
        "training.report_to=[]",
        "training.precision=fp32",
        "training.max_tokens_per_forward=512",
        "training.eval_steps=100000",
        "training.seed=3",
        "export.precisions=[]",
        *overrides,
    ]


def checkpoints(output):
    return sorted(path.name for path in (output / "steps").glob("checkpoint-*"))


@pytest.fixture
def trained(tiny_backbone, tmp_path, unended):
    overrides = settings(tiny_backbone, tmp_path / "run", "data.max_train_samples=12", "training.eval_steps=0.5")
    train(load_config("pairrm", overrides))
    return tmp_path / "run", overrides


def test_a_second_run_without_resume_is_refused_and_keeps_the_checkpoints(trained):
    output, overrides = trained
    before = checkpoints(output)
    with pytest.raises(ConfigError, match=r"holds an earlier run \(checkpoint-.*--resume.*--overwrite"):
        train(load_config("pairrm", overrides))
    assert checkpoints(output) == before
    with pytest.raises(ConfigError, match="choose one of them"):
        train(load_config("pairrm", overrides), resume=True, overwrite=True)


def test_a_file_without_rows_trains_and_resumes_though_its_rates_are_open(tiny_backbone, tmp_path, unended):
    file = tmp_path / "own.yaml"
    file.write_text(
        f"recipe: pairrm\noutput_dir: {tmp_path / 'run'}\nmodel: {{max_length: 64, prompt_reserve: 16}}\n"
        "training: {precision: fp32, save_steps: 1, report_to: []}\nexport: {precisions: []}\n"
    )
    pairs = [{"prompt": f"p{k}", "chosen": "yes it is", "rejected": "no"} for k in range(12)]
    first = ranker.train(file, model=tiny_backbone, data=pairs)
    assert ranker.train(file, model=tiny_backbone, data=pairs, resume=True).steps == first.steps > 0
    with pytest.raises(ConfigError, match=r"other settings: training\.learning_rate was .*, is 0\.5"):
        ranker.train(file, model=tiny_backbone, data=pairs, resume=True, training={"learning_rate": 0.5})


def test_a_folder_in_use_is_refused_before_libraries_are_loaded_and_rows_are_written(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"of the earlier run")
    (tmp_path / "train-rows.jsonl").write_text("of the earlier run")
    program = f"""
import ranker, sys
try:
    ranker.train(data=[{{"prompt": "p", "chosen": "a", "rejected": "b"}}], output_dir={str(tmp_path)!r})
except ranker.ConfigError as error:
    print(error, sorted(sys.modules.keys() & {{"torch", "transformers"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "holds an earlier run (model.onnx). Continue it with --resume (resume=True)" in done.stdout
    assert done.stdout.endswith(" []\n"), done.stdout
    assert (tmp_path / "train-rows.jsonl").read_text() == "of the earlier run"


def test_overwrite_replaces_the_earlier_run_and_nothing_else(trained, tiny_backbone):
    output, overrides = trained
    (output / "model.int8.onnx").write_bytes(b"of the earlier run")
    (output / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"model\.name_or_path 'no/where'"):
        train(load_config("pairrm", [*overrides, "model.name_or_path=no/where"]), overwrite=True)
    assert checkpoints(output), "a run that cannot start removes nothing"
    train(load_config("pairrm", [*overrides, "training.num_train_epochs=0.5"]), overwrite=True)
    assert not (output / "model.int8.onnx").exists()
    assert (output / "notes.txt").read_text() == "mine"
    source = [*overrides, f"model.name_or_path={output / 'checkpoint'}"]
    with pytest.raises(ConfigError, match=r"--overwrite would delete model\.name_or_path"):
        train(load_config("pairrm", source), overwrite=True)


@pytest.mark.full
def test_two_runs_at_once_in_one_folder_are_refused(tiny_backbone, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from ranker.training.resume import only_run\n"
        f"with only_run(Path({str(tmp_path)!r})):\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(JobError, match="another process is training in this folder"):
        train(load_config("pairrm", settings(tiny_backbone, tmp_path)))
    holder.kill()  # as SIGKILL would: the lock ends with its process
    holder.wait()
    with only_run(tmp_path), only_run(tmp_path):
        assert (tmp_path / resume.LOCK).exists()


@pytest.mark.full
@pytest.mark.parametrize(
    ("number", "code"), cases([(signal.SIGINT, 130), (signal.SIGTERM, 143)], lambda case: case[0] == signal.SIGTERM)
)
def test_a_signal_saves_at_once_and_prints_the_command_that_continues(number, code, tiny_backbone, tmp_path):
    overrides = settings(tiny_backbone, tmp_path / "stopped", "training.num_train_epochs=12", "model.head_dropout=0.1")
    ended = ranker_until(r"train: ([3-9]|\d\d+) of", [number, number], "train", "pairrm", *overrides)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    (step, steps) = map(int, re.findall(r"stopped after step (\d+) of (\d+), saved in", ended.stderr)[0])
    assert 3 <= step < steps, "it stops after the step that was running"
    assert checkpoints(tmp_path / "stopped") == [f"checkpoint-{step}"]
    (again,) = re.findall(r"continue with: (ranker train .*)", ended.stderr)
    assert shlex.split(again) == ["ranker", "train", "pairrm", *overrides, "--resume"]
    if number == signal.SIGINT:
        train(load_config("pairrm", overrides), resume=True)
        whole = train(load_config("pairrm", [*overrides, f"output_dir={tmp_path / 'whole'}"]))
        one = load_file(whole.folder / "model.safetensors")
        other = load_file(tmp_path / "stopped" / "checkpoint" / "model.safetensors")
        assert all(torch.equal(one[name], other[name]) for name in one), "as if it had never been stopped"


def test_a_signal_while_processes_agree_is_not_lost(monkeypatch):
    stop = StopRequest(2)

    def shared(number, operation):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(torch.distributed, "all_reduce", shared)
    with stop.watched():
        assert stop.agreed(torch.device("cpu")) is None, "the other process does not know yet"
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda number, operation: None)
        assert stop.agreed(torch.device("cpu")) == signal.SIGTERM


def test_a_validation_that_a_stop_cut_off_is_done_when_the_run_is_resumed(tiny_backbone, tmp_path, monkeypatch):
    overrides = settings(tiny_backbone, tmp_path / "stopped", "data.max_train_samples=12", "training.eval_steps=0.5")
    whole = train(load_config("pairrm", [*overrides, f"output_dir={tmp_path / 'whole'}"]))
    score = RankerTrainer.score

    def interrupted(self, groups):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the validation went on")

    monkeypatch.setattr(RankerTrainer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(load_config("pairrm", overrides))
    monkeypatch.setattr(RankerTrainer, "score", score)
    again = train(load_config("pairrm", overrides), resume=True)
    evaluated = [
        [(e["step"], e["eval_accuracy"]) for e in run.history if "eval_accuracy" in e] for run in (whole, again)
    ]
    assert evaluated[0] == evaluated[1]
    assert len(evaluated[0]) == 2


def test_a_signal_after_the_last_step_keeps_the_model_and_ends(tiny_backbone, tmp_path, monkeypatch):
    finalize = RankerTrainer._finalize_training

    def signalled(self, *args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return finalize(self, *args, **kwargs)

    monkeypatch.setattr(RankerTrainer, "_finalize_training", signalled)
    with pytest.raises(TrainingStopped) as caught:
        train(load_config("pairrm", settings(tiny_backbone, tmp_path, "data.max_train_samples=12")))
    assert caught.value.folder == tmp_path / "checkpoint"
    assert caught.value.step == caught.value.steps
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


def test_exports_and_reports_are_an_earlier_run_too(tiny_backbone, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"exported long ago")
    (tmp_path / "model-mine.onnx").write_bytes(b"mine")
    overrides = settings(tiny_backbone, tmp_path, "data.max_train_samples=12")
    with pytest.raises(ConfigError, match=r"holds an earlier run \(model\.onnx\)"):
        train(load_config("pairrm", overrides))
    train(load_config("pairrm", overrides), overwrite=True)
    assert not (tmp_path / "model.onnx").exists()
    assert (tmp_path / "model-mine.onnx").exists()


def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    atomic.draft_of(tmp_path / "x").mkdir()
    (tmp_path / f".x{atomic.REPLACED}").mkdir()
    (tmp_path / f".x{atomic.REPLACED}" / "weights").write_text("old")
    atomic.remove_leftovers(tmp_path)
    assert (tmp_path / "x" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_signal_during_validation_saves_without_waiting_for_it(tiny_backbone, tmp_path, monkeypatch):
    def interrupted(self, groups):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the validation went on")

    monkeypatch.setattr(RankerTrainer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(load_config("pairrm", settings(tiny_backbone, tmp_path, "data.max_train_samples=12")))
    assert caught.value.folder == tmp_path / "steps" / f"checkpoint-{caught.value.step}"
    assert resume.damage(caught.value.folder) is None


def test_a_kill_within_a_write_leaves_no_checkpoint_and_resume_takes_the_whole_one(trained, monkeypatch, caplog):
    output, overrides = trained
    first, last = sorted(checkpoints(output), key=lambda name: int(name.split("-")[1]))
    weights = load_file(output / "checkpoint" / "model.safetensors")
    (output / "steps" / last / "optimizer.pt").write_bytes(b"PK\x03\x04 cut")
    train(load_config("pairrm", overrides), resume=True)
    assert f"{last} is not whole (optimizer.pt was changed: its checksum is another); resuming from" in caplog.text
    again = load_file(output / "checkpoint" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    def killed(self, output_dir):
        raise MemoryError("killed")

    monkeypatch.setattr(RankerTrainer, "_save_rng_state", killed)
    with pytest.raises(MemoryError, match="killed"):
        train(load_config("pairrm", overrides), overwrite=True)
    assert checkpoints(output) == []


STATE_FILES = ("trainer_state.json", "rng_state.pth", "model.safetensors", "optimizer.pt", "scheduler.pt")


@pytest.mark.parametrize("checksums", [True, False], ids=["", "of an earlier version"])
@pytest.mark.parametrize("name", STATE_FILES)
def test_a_checkpoint_that_lacks_a_file_is_not_resumed_from(trained, name, checksums):
    output, _ = trained
    for folder in (output / "steps").glob("checkpoint-*"):
        (folder / name).unlink()
        if not checksums:
            (folder / resume.CHECKSUMS).unlink()
    with pytest.raises(CheckpointError, match=r"is not whole .*start anew with --overwrite"):
        newest_whole(output)


@pytest.mark.parametrize("name", [*STATE_FILES[1:], "config.json", "training_args.bin"])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_taken(trained, name, caplog):
    output, _ = trained
    first, last = sorted(checkpoints(output), key=lambda step: int(step.split("-")[1]))
    file = output / "steps" / last / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert newest_whole(output).name == first
    assert f"{last} is not whole ({name} was changed: its checksum is another); resuming from {first}" in caplog.text


def test_the_state_of_another_step_is_not_resumed_from(trained):
    output, _ = trained
    first, last = sorted((output / "steps").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (last / "trainer_state.json").write_text((first / "trainer_state.json").read_text())
    assert newest_whole(output) == first
    assert resume.damage(last) == f"trainer_state.json is that of step {first.name.split('-')[1]}"


def test_checksums_are_those_that_sha256sum_reads(trained):
    output, _ = trained
    for folder in (output / "steps").glob("checkpoint-*"):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", resume.CHECKSUMS], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        assert {line.split(":")[0] for line in done.stdout.splitlines()} == {
            path.name for path in folder.iterdir() if path.name != resume.CHECKSUMS
        }


def test_a_finished_run_resumes_to_its_end(trained):
    output, overrides = trained
    weights = load_file(output / "checkpoint" / "model.safetensors")
    train(load_config("pairrm", overrides), resume=True)
    again = load_file(output / "checkpoint" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_training_that_ended_leaves_no_checkpoint_and_is_not_repeated(tiny_backbone, tmp_path, monkeypatch):
    config = load_config("pairrm", settings(tiny_backbone, tmp_path, "data.max_train_samples=12"))
    first = train(config)
    assert {path.name for path in (tmp_path / "steps").iterdir()} == {
        "end.json",
        "max_tokens_per_forward",
        "plan.sha256",
    }
    assert "training_args.bin" not in {path.name for path in first.folder.iterdir()}
    monkeypatch.setattr(RankerTrainer, "train", None)
    again = train(config, resume=True)
    groups = [row.group for row in first.validation]
    for one, other in zip(first.scorer.score(groups), again.scorer.score(groups), strict=True):
        # torch adds up otherwise where a tensor is aligned otherwise in memory, so the weights are compared to the bit
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
    weights_of = first.scorer.model.state_dict(), again.scorer.model.state_dict()
    assert weights_of[0].keys() == weights_of[1].keys()
    assert all(torch.equal(tensor, weights_of[1][name]) for name, tensor in weights_of[0].items())
    assert (again.history, again.steps, again.seconds) == (first.history, first.steps, first.seconds)
    rows = ROOT / "data" / "train.jsonl"
    other = [*settings(tiny_backbone, tmp_path, "data.max_train_samples=12"), f"data.test=[{rows}]"]
    other += ["data.train_eval_overlap=drop", "data.max_test_samples=5"]
    (tmp_path / "config.yaml").write_text(
        (tmp_path / "config.yaml").read_text().replace("overlap: warn", "overlap: drop")
    )
    with pytest.raises(ConfigError, match="or those left out of it because of data"):
        train(load_config("pairrm", other), resume=True)
    (tmp_path / "config.yaml").write_text(
        (tmp_path / "config.yaml").read_text().replace("overlap: drop", "overlap: warn")
    )
    weights = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="its weights are not those of the finished training"):
        train(config, resume=True)
    (tmp_path / "steps" / "end.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"end\.json: damaged"):
        train(config, resume=True)


def test_a_run_of_one_step_trains(tiny_backbone, tmp_path):
    overrides = settings(
        tiny_backbone,
        tmp_path,
        "data.max_train_samples=2",
        "training.max_tokens_per_forward=4096",
        "training.warmup_steps=0.1",
    )
    trained = train(load_config("pairrm", overrides))
    assert trained.steps == 1
    rates = [entry["learning_rate"] for entry in trained.history if "learning_rate" in entry]
    backbone = load_file(tiny_backbone / "model.safetensors")
    final = load_file(trained.folder / "model.safetensors")
    name = next(name for name in backbone if name.endswith("layer.0.output.dense.weight"))
    moved = next(tensor for key, tensor in final.items() if key.endswith(name))
    assert not torch.equal(backbone[name], moved), rates


def test_a_failed_export_loses_no_report(tiny_backbone, tmp_path, monkeypatch):
    import ranker.export.write as command
    from ranker.cli import train as cli

    def fails(*args, **kwargs):
        raise MemoryError("the export failed")

    monkeypatch.setattr(command, "export", fails)
    overrides = settings(tiny_backbone, tmp_path / "run", "data.max_train_samples=12", "export.precisions=[fp32]")
    with pytest.raises(MemoryError, match="the export failed"):
        cli.run(load_config("pairrm", overrides), "")
    assert {"report.html", "report.md", "metrics.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert (tmp_path / "run" / "checkpoint" / "README.md").is_file()


@pytest.mark.full
def test_validation_rows_are_never_called_held_out(tiny_backbone, tmp_path, capsys):
    from ranker.cli import train as cli

    overrides = settings(tiny_backbone, tmp_path / "run", "data.max_train_samples=12", "export.precisions=[fp32]")
    cli.run(load_config("pairrm", overrides), "")
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    shown = capsys.readouterr().out
    for text in (card, shown, (tmp_path / "run" / "report.md").read_text()):
        assert "held-out" not in text.lower()
        assert "validation" in text.lower()
    assert "## Validation" in card
    assert "by which the checkpoint was chosen" in card
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["split"] == "validation"
    named = [
        *overrides,
        "export.precisions=[]",
        f"data.test=[{ROOT / 'data' / 'validation.jsonl'}]",
        f"output_dir={tmp_path / 'named'}",
    ]
    cli.run(load_config("pairrm", named), "")
    assert "## Held-out evaluation" in (tmp_path / "named" / "checkpoint" / "README.md").read_text()


def test_the_command_line_has_both_options():
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["train", "--help"]).output
    assert "--resume" in shown
    assert "--overwrite" in shown
