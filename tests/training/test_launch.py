"""Several processes: two on CPU over gloo train what one process trains; what cannot work is refused in plain words."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from ranker.checkpoints import native
from ranker.config import load_config
from ranker.errors import ConfigError
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.training.launch import CONFIG_FILE, DEEPSPEED, FSDP, STAGE, STATE_DICT, launched
from ranker.training.resume import damage
from ranker.training.train import train
from tests.conftest import ROOT
from tests.models.test_reward import save_backbone
from tests.support.processes import until


def settings(tmp_path, name, *overrides, recipe=""):
    dropout = ["model.head_dropout=0"] if recipe == "pairrm" else []
    return [
        f"output_dir={tmp_path / name}",
        f"model.name_or_path={tmp_path / 'backbone'}",
        "model.max_length=128",
        f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
        f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
        "data.test=[]",
        "data.max_train_samples=21",
        "data.max_eval_samples=5",
        "training.report_to=[]",
        "training.precision=fp32",
        "training.max_tokens_per_forward=512",
        "training.tokens_per_step=1024",
        "training.eval_steps=0.5",
        "training.learning_rate=1e-3",
        *dropout,
        *overrides,
    ]


def launch(recipe, overrides, env=None, module="ranker"):
    """Run ``ranker train`` in two processes over gloo on the loopback interface."""
    command = launcher(recipe, overrides, module)
    done = subprocess.run(command, cwd=ROOT, env=environment(env), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-20000:]
    return done


def launcher(recipe, overrides, module="ranker"):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
        "-m",
        module,
        "train",
        recipe,
        *overrides,
    ]


def environment(more=None):
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return clean | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"} | (more or {})


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_stopped_leaves_one_whole_checkpoint_of_one_step(number, tmp_path):
    save_backbone(tmp_path / "backbone", "bert")
    overrides = settings(
        tmp_path, "run", "training.num_train_epochs=60", "export.precisions=[]", "training.eval_steps=1000"
    )
    ended = until(r"train: ([3-9]|\d\d+) of", [number], launcher("pairrm", overrides), environment())
    (step,) = re.findall(r"stopped after step (\d+) of \d+, saved in", ended.stderr)
    assert "continue with the same launch command and --resume" in ended.stderr
    (folder,) = (tmp_path / "run" / "steps").glob("checkpoint-*")
    assert folder.name == f"checkpoint-{step}"
    assert damage(folder) is None
    assert {path.name for path in folder.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.full
@pytest.mark.parametrize(
    ("recipe", "family"),
    [("pairrm", "bert"), ("encoder-regress", "bert"), ("decoder-bradley-terry", "llama")],
)
def test_two_processes_train_what_one_trains(recipe, family, tmp_path):
    """The same batches in the same steps: every step's loss is the mean over both processes, ballast not counted."""
    save_backbone(tmp_path / "backbone", family)
    trained = train(load_config(recipe, settings(tmp_path, "one", recipe=recipe)))
    done = launch(recipe, [*settings(tmp_path, "two", recipe=recipe), "export.precisions=[]"])
    assert done.stdout.count("evaluating on") == 1, "one process reports"
    one, two = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    groups = [p.group for p in trained.validation]
    a, b = (TorchScorer(*native.load(tmp_path / name / "checkpoint")).score(groups) for name in ("one", "two"))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x.scores, y.scores, atol=1e-3)
    assert set(one) == set(two)
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, two[name], atol=1e-4, err_msg=name)
    assert json.loads((tmp_path / "two" / "steps" / "end.json").read_text())["steps"] == trained.steps


FSDP2 = {
    FSDP: "true",
    "FSDP_VERSION": "2",
    STATE_DICT: "FULL_STATE_DICT",
    "FSDP_AUTO_WRAP_POLICY": "NO_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


@pytest.mark.full
@pytest.mark.parametrize(
    ("recipe", "family"),
    [("pairrm", "bert"), ("decoder-bradley-terry", "llama")],
)
def test_sharded_weights_train_alike_and_are_saved_whole(recipe, family, tmp_path):
    """FSDP2 over two processes: the head is in the checkpoint, whole, and every checkpoint scores like the live model."""
    save_backbone(tmp_path / "backbone", family)
    trained = train(load_config(recipe, settings(tmp_path, "one", "training.eval_steps=100000", recipe=recipe)))
    overrides = [*settings(tmp_path, "two", "training.eval_steps=100000", recipe=recipe), "export.precisions=[]"]
    launch(recipe, overrides, FSDP2, "tests.training.fsdp_on_cpu")
    groups = [p.group for p in trained.validation]
    sharded = TorchScorer(*native.load(tmp_path / "two" / "checkpoint")).score(groups)
    for x, y in zip(trained.scorer.score(groups), sharded, strict=True):
        np.testing.assert_allclose(x.scores, y.scores, atol=1e-3)


@pytest.mark.full
def test_sharding_that_does_not_happen_is_said(tmp_path):
    save_backbone(tmp_path / "backbone", "bert")
    with pytest.raises(AssertionError, match="does not shard here"):
        launch("pairrm", settings(tmp_path, "two"), FSDP2)


@pytest.mark.full
def test_a_lora_adapter_of_two_processes_holds_its_head(tmp_path):
    save_backbone(tmp_path / "backbone", "llama")
    launch("decoder-bradley-terry", [*settings(tmp_path, "two", "lora.r=4"), "export.precisions=[]"])
    groups = [Group("Name a tool.", ("a hammer", "an apple"))]
    scorers = [TorchScorer(*native.load(tmp_path / "two" / part)) for part in ("checkpoint", "adapter")]
    merged, adapter = (scorer.score(groups)[0].scores for scorer in scorers)
    np.testing.assert_allclose(merged, adapter, atol=1e-4)


@pytest.mark.parametrize(
    ("env", "overrides", "reason"),
    [
        ({DEEPSPEED: "true", STAGE: "3"}, ["lora.r=8", "lora.quantization=4bit"], "use ZeRO stage 2"),
        ({FSDP: "true"}, ["lora.r=8"], "adapters under ZeRO-3 or FSDP"),
        ({FSDP: "true", STATE_DICT: "SHARDED_STATE_DICT"}, [], "fsdp_state_dict_type: FULL_STATE_DICT"),
        ({FSDP: "true", "FSDP_VERSION": "2"}, [], "fsdp_state_dict_type: FULL_STATE_DICT"),
    ],
)
def test_what_cannot_work_is_refused_before_training(env, overrides, reason, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=reason):
        launched(load_config("decoder-bradley-terry", overrides))


def test_pairwise_models_are_refused_under_zero_3(monkeypatch):
    monkeypatch.setenv(DEEPSPEED, "true")
    monkeypatch.setenv(STAGE, "3")
    with pytest.raises(ConfigError, match="use stage 2, DDP or FSDP"):
        launched(load_config("pairrm"))


def test_the_stage_is_read_from_deepspeed_s_own_file(tmp_path, monkeypatch):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    monkeypatch.setenv(DEEPSPEED, "true")
    monkeypatch.setenv(CONFIG_FILE, str(tmp_path / "ds.json"))
    assert launched(load_config("decoder-bradley-terry")).sharded
    with pytest.raises(ConfigError, match="adapters under ZeRO-3"):
        launched(load_config("decoder-bradley-terry", ["lora.r=8"]))


def test_gated_models_are_fitted_in_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="in one process"):
        launched(load_config("armorm"))
