import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ranker.checkpoints import native
from ranker.errors import CheckpointError
from tests.conftest import tiny


@pytest.fixture
def saved(tmp_path):
    model, tokenizer = tiny()
    native.save(model, tokenizer, tmp_path)
    return tmp_path


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_missing_head_is_refused_by_name(saved):
    rewrite(saved, lambda t: t.pop("head.out.weight"))
    with pytest.raises(CheckpointError, match=r"'head\.out\.weight' is missing.*ranker train"):
        native.load(saved)


def test_head_under_another_name_is_refused(saved):
    def rename(tensors):
        tensors["value_head.weight"] = tensors.pop("head.out.weight")

    rewrite(saved, rename)
    with pytest.raises(CheckpointError, match=r"'head\.out\.weight' is missing"):
        native.load(saved)


def test_two_outputs_are_refused(saved):
    rewrite(saved, lambda t: t.update({"head.out.weight": torch.zeros(2, 32)}))
    with pytest.raises(CheckpointError, match=r"'head\.out\.weight' has shape \[2, 32\], expected \[1, 32\]"):
        native.load(saved)


def test_zero_size_tensor_is_refused(saved):
    rewrite(saved, lambda t: t.update({"head.dense.weight": torch.zeros(0)}))
    with pytest.raises(CheckpointError, match=r"has shape \[0\]"):
        native.load(saved)


def test_nan_is_refused(saved):
    rewrite(saved, lambda t: t["head.dense.bias"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"'head\.dense\.bias' holds NaN"):
        native.load(saved)


def test_unexpected_tensor_is_refused(saved):
    rewrite(saved, lambda t: t.update({"extra_head.weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"unexpected tensor 'extra_head\.weight'"):
        native.load(saved)


def test_truncated_file_is_refused(saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        native.load(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "expected model.safetensors"),
        ("tokenizer.json", "tokenizer.json"),
    ],
)
def test_missing_files_are_named(saved, name, message):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        native.load(saved)


def test_foreign_config_is_named(saved):
    (saved / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="format 'unknown' is not read as a reward model"):
        native.load(saved)
