"""``ranker verify`` passes what is whole, finds a flipped byte, another model, a head at chance."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ranker.checkpoints import native
from ranker.checkpoints.verify import SUMS, verify
from ranker.cli.main import app
from ranker.errors import CheckpointError
from ranker.records import Group, Preference
from tests.checkpoints.layouts import CHECKPOINTS, configured, decoder
from tests.conftest import tiny
from tests.models.test_reward import ANSWERS, PROMPT, trained


def failed(checks):
    return {check.name: check.seen for check in checks if not check.passed}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_is_whole_passes_every_check(name, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    assert failed(verify(checkpoint.folder, **checkpoint.options)) == {}


@pytest.mark.parametrize("layout", ["shared_prompt", "set_encoder", "ordered_pair"])
def test_pair_rankers_pass(layout, tmp_path):
    native.save(*tiny(layout), tmp_path / "m")
    assert not failed(verify(tmp_path / "m"))


def test_decoders_are_read_under_left_padding(tmp_path):
    folder, _ = trained(tmp_path, "llama")
    seen = {check.name: check.seen for check in verify(folder)}
    assert seen["padding"].startswith("left and right")


def test_any_flipped_byte_is_found(tmp_path):
    folder, _ = trained(tmp_path, "bert")
    assert not failed(verify(folder))
    assert (folder / SUMS).is_file()
    assert not failed(verify(folder))
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        if path.name == SUMS or not path.stat().st_size:
            continue
        whole = path.read_bytes()
        at = int(rng.integers(len(whole)))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            message = failed(verify(folder))["checksums"]
        except CheckpointError as error:  # the byte broke the file's structure
            message = str(error)
        assert f"{path.name} changed" in message
        path.write_bytes(whole)
    (folder / "more.txt").write_text("x")
    assert "more.txt is new" in failed(verify(folder))["checksums"]


def test_sums_are_those_of_sha256sum(tmp_path):
    import subprocess

    folder, _ = trained(tmp_path, "bert")
    verify(folder)
    done = subprocess.run(["sha256sum", "--check", SUMS], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_against_another_checkpoint(tmp_path):
    checkpoint = decoder(tmp_path / "a")
    other = decoder(tmp_path / "b")
    assert not failed(verify(checkpoint.folder, against=other.folder))
    file = other.folder / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"score.weight": -tensors["score.weight"]}, file, {"format": "pt"})
    (difference,) = failed(verify(checkpoint.folder, against=other.folder)).values()
    assert "scores differ by at most" in difference


def test_a_head_at_chance_fails_with_its_interval(tmp_path):
    folder, scorer = trained(tmp_path, "bert")
    rng = np.random.default_rng(1)
    groups = [Group(f"{PROMPT} {i}", (ANSWERS[i % 3], f"{ANSWERS[(i + 1) % 3]} {i}")) for i in range(80)]
    scored = [r.scores for r in scorer.score(groups)]
    right = [
        Preference(g.prompt, g.candidates, ((float(a),), (float(b),))) for g, (a, b) in zip(groups, scored, strict=True)
    ]
    checks = {check.name: check for check in verify(folder, data=right)}
    assert checks["accuracy"].passed
    assert "1.000 [" in checks["accuracy"].seen
    assert "n = 80" in checks["accuracy"].seen
    noise = [Preference(g.prompt, g.candidates, ((rng.normal(),), (rng.normal(),))) for g in groups]
    assert "no better than chance" in failed(verify(folder, data=noise))["accuracy"]


def test_the_command_says_each_check_and_ends_with_its_exit_code(tmp_path):
    checkpoint = decoder(tmp_path)
    configured(checkpoint.folder, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    shown = CliRunner().invoke(app, ["verify", str(checkpoint.folder)])
    assert isinstance(shown.exception, CheckpointError)
    assert "1 of 7 checks failed: config and files" in str(shown.exception)
    assert "present, finite and not empty" in shown.stdout
    assert not (checkpoint.folder / SUMS).exists()
    target = tmp_path / "repaired"
    assert CliRunner().invoke(app, ["convert", str(checkpoint.folder), str(target), "--to", "hf"]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(target)]).exit_code == 0
    assert json.loads((target / "config.json").read_text())["id2label"] == {"0": "reward"}


def test_a_truncated_shard_is_refused_by_name_and_never_left_on_the_meta_device(tmp_path):
    checkpoint = decoder(tmp_path)
    file = checkpoint.folder / checkpoint.file
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or truncated"):
        verify(checkpoint.folder)


def test_a_tensor_on_the_meta_device_is_named():
    from ranker.checkpoints.verify import _tensors

    with torch.device("meta"):
        model = torch.nn.Linear(2, 1)
    check = _tensors(model)
    assert not check.passed
    assert "'weight' is on the meta device" in check.seen
