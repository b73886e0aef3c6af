"""Quantization-aware training."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ranker.checkpoints import native
from ranker.config import load_config
from ranker.errors import ConfigError
from ranker.models.torch_scorer import TorchScorer
from ranker.scoring.pipeline import TextPipeline
from ranker.training.groups import Groups
from ranker.training.stages import qat
from ranker.training.train import train
from tests.conftest import ROOT, tiny
from tests.export.test_export import ROWS
from tests.training.test_run import tiny_config


class Layers(nn.Module):
    """A product of each kind, and a head that is left alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.conv, self.head = nn.Linear(6, 5), Conv1D(5, 6), nn.Linear(6, 2)


def test_products_are_rounded_by_the_formula_and_only_inside():
    layers = Layers()
    x = torch.randn(1, 4, 6)
    before = layers.dense(x), layers.conv(x), layers.head(x)
    low, high = min(0.0, x.min().item()), max(0.0, x.max().item())
    step = (high - low) / 255
    q = np.clip(np.round(x.numpy() / step), -round(-low / step), 255 - round(-low / step)) * step
    weights = layers.dense.weight.detach().numpy()
    units = np.abs(weights).max(axis=1, keepdims=True) / 127
    expected = q @ (np.round(weights / units) * units).T + layers.dense.bias.detach().numpy()
    with qat.rounded(layers):
        inside = layers.dense(x), layers.conv(x), layers.head(x)
    np.testing.assert_allclose(inside[0].detach().numpy(), expected, atol=1e-5)
    differences = [float((a - b).abs().max()) for a, b in zip(before, inside, strict=True)]
    assert 1e-4 < differences[0] < 0.1
    assert 1e-4 < differences[1] < 0.1
    assert differences[2] == 0
    assert torch.equal(layers.dense(x), before[0])
    assert set(layers.state_dict()) == {f"{n}.{p}" for n in ("dense", "conv", "head") for p in ("weight", "bias")}


def test_gradients_pass_through():
    x = torch.randn(1, 4, 6, requires_grad=True)
    layers = Layers()
    with qat.rounded(layers):
        layers.dense(x).sum().backward()
    assert x.grad.abs().min() > 0
    assert layers.dense.weight.grad.abs().min() > 0


def test_a_range_follows_what_it_sees():
    seen = qat.Range()
    assert [float(end) for end in seen.see(torch.tensor([2.0, 4.0]))] == [0, 4]
    low, high = seen.see(torch.tensor([-10.0, 2.0]))
    np.testing.assert_allclose([low, high], [-0.5, 3.9], rtol=1e-6)


def test_the_finish_makes_rounding_cost_less_and_keeps_what_the_model_says():
    model, tokenizer = tiny("set_encoder")
    config = load_config("pairrm", ["training.learning_rate=5e-3", "training.max_tokens_per_forward=1024"]).training
    groups = [row.group for row in ROWS]
    before = TorchScorer(model, tokenizer).score(groups)
    rows = [row for row in ROWS if len(row.candidates) > 1]
    first, last = qat.train_quantized(
        model, Groups(rows, TextPipeline(model.layout, tokenizer)), config, 60, learning_rate=5e-3
    )
    assert last < 0.8 * first
    after = TorchScorer(model, tokenizer).score(groups)
    same, other = (np.concatenate([r.scores for r in part]) for part in (before, after))
    assert 0 < np.sqrt(np.mean((same - other) ** 2)) < 0.2 * same.std()
    assert not model.training


def test_a_run_ends_with_it_and_saves_what_it_gave(tiny_backbone, tmp_path, monkeypatch):
    steps = []
    train_quantized = qat.train_quantized
    monkeypatch.setattr(
        qat, "train_quantized", lambda *args, **options: steps.append(args[-1]) or train_quantized(*args, **options)
    )
    plain = train(tiny_config(tiny_backbone, tmp_path / "plain"))
    trained = train(tiny_config(tiny_backbone, tmp_path / "run", "qat=int8", "qat_steps=3"))
    assert steps == [3]
    groups = [p.group for p in trained.validation]
    saved = TorchScorer(*native.load(trained.folder)).score(groups)
    for a, b, c in zip(trained.scorer.score(groups), saved, plain.scorer.score(groups), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)
        assert not np.array_equal(b.scores, c.scores)


def test_adapters_are_merged_first():
    with pytest.raises(ConfigError, match="qat trains all weights; merge the adapter"):
        load_config("encoder-bradley-terry", ["qat=int8", "lora.r=4"])


def test_a_frozen_backbone_is_refused():
    data = ROOT / "data" / "train.jsonl"
    with pytest.raises(ConfigError, match="'armorm' freezes its backbone; remove lora and qat"):
        load_config("armorm", ["qat=int8", f"data.aspects=[{data}]"])
