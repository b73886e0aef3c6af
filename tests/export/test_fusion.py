"""Nodes that are fused before a graph becomes fp16: which, and that they say the same."""

from collections import Counter

import numpy as np
import onnx
import pytest

import ranker
from ranker.checkpoints import native
from ranker.data.sample import build
from ranker.errors import ConfigError, ExportError, ParityError
from ranker.export import graph, half, parity, write
from ranker.export.fusion import Fusion
from ranker.models import pointwise
from ranker.records import Group
from ranker.runtime.onnx_scorer import GraphScorer, OnnxScorer
from ranker.scoring import batching
from tests.conftest import tiny
from tests.export.test_export import ROWS
from tests.models.test_reward import save_backbone
from tests.support.selection import cases

LAYERS = 2
POST_NORM = ("bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2")
GROUPS = [
    Group(row["prompt"], tuple(row["candidates"][: 1 + i % 4]))
    for i, row in zip(range(8), build.rows("validation"), strict=False)
]


def model_of(kind, folder):
    if kind == "llama" or kind == "gpt2":
        return pointwise.from_backbone(
            str(save_backbone(folder / "backbone", kind)), output="scalar", max_length=128, prompt_reserve=32
        )
    layout, _, family = kind.partition(" ")
    return (
        tiny(layout, family=family or "bert")
        if layout in ("set_encoder", "ordered_pair")
        else tiny("pointwise", family=kind)
    )


def kinds_of(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def scores_of(path, model, tokenizer):
    results = GraphScorer(path, model.layout, tokenizer, device="cpu").score(GROUPS)
    assert not any(result.error for result in results)
    return np.concatenate([result.scores for result in results])


@pytest.mark.full
@pytest.mark.parametrize("family", cases(POST_NORM, "bert".__eq__))
def test_every_layer_of_an_fp16_graph_is_fused(family, tmp_path):
    model, tokenizer = model_of(family, tmp_path)
    graph.to_onnx(model, tmp_path / "graph.onnx")
    kinds = kinds_of(half.fp16(tmp_path / "graph.onnx"))
    assert kinds["MultiHeadAttention"] == LAYERS
    assert kinds["BiasGelu"] == LAYERS
    assert kinds["SkipLayerNormalization"] == 2 * LAYERS
    assert kinds["Erf"] == kinds["Sqrt"] == 0
    assert kinds["Reshape"] == 0 or family == "deberta-v2"
    assert kinds["Cast"] <= 13  # of inputs, the mask and the head; none of a layer


@pytest.mark.parametrize(
    "kind", cases((*POST_NORM, "modernbert", "set_encoder", "ordered_pair", "llama", "gpt2"), "electra".__eq__)
)
def test_a_fused_graph_says_what_the_graph_says(kind, tmp_path):
    model, tokenizer = model_of(kind, tmp_path)
    graph.to_onnx(model, tmp_path / "graph.onnx")
    fused = onnx.load(tmp_path / "graph.onnx")
    before = Counter(node.op_type for node in fused.graph.node)
    Fusion(fused).fuse()
    onnx.save(fused, tmp_path / "fused.onnx")
    expected = scores_of(tmp_path / "graph.onnx", model, tokenizer)
    np.testing.assert_allclose(scores_of(tmp_path / "fused.onnx", model, tokenizer), expected, rtol=1e-4, atol=1e-5)
    after = kinds_of(tmp_path / "fused.onnx")
    if kind in POST_NORM:
        assert (after["MultiHeadAttention"], after["BiasGelu"]) == (LAYERS, LAYERS)
        assert after["SkipLayerNormalization"] == 2 * LAYERS
        assert sum(after.values()) < sum(before.values())
    names = {tensor.name for tensor in fused.graph.initializer}
    assert names <= {name for node in fused.graph.node for name in node.input}


@pytest.mark.full
@pytest.mark.parametrize("kind", cases(("bert", "roberta", "distilbert", "modernbert", "ordered_pair"), "bert".__eq__))
def test_key_lengths_say_what_a_mask_of_padding_says(kind, tmp_path):
    model, tokenizer = model_of(kind, tmp_path)
    graph.to_onnx(model, tmp_path / "graph.onnx")
    changed = onnx.load(tmp_path / "graph.onnx")
    fusion = Fusion(changed)
    fusion.fuse()
    # ModernBERT's other layer sees its neighbourhood; the last one of an ordered pair is computed for a few tokens.
    expected = 1 if kind in ("modernbert", "ordered_pair") else LAYERS
    assert fusion.use_key_lengths() == expected
    onnx.save(changed, tmp_path / "lengths.onnx")
    attention = [node for node in changed.graph.node if node.op_type == "MultiHeadAttention"]
    assert [list(node.input)[3:] for node in attention].count(["", "key_lengths"]) == expected
    assert "Where" not in kinds_of(tmp_path / "lengths.onnx") or kind in ("modernbert", "ordered_pair")
    expected = scores_of(tmp_path / "graph.onnx", model, tokenizer)
    np.testing.assert_allclose(scores_of(tmp_path / "lengths.onnx", model, tokenizer), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    cases(
        [("bert", LAYERS), ("roberta", LAYERS), ("ordered_pair", LAYERS - 1), ("modernbert", 1), ("llama", 0)],
        lambda case: case[0] == "bert",
    ),
)
def test_passes_without_padding_compute_attention_without_a_mask(kind, expected, tmp_path):
    model, tokenizer = model_of(kind, tmp_path)
    graph.to_onnx(model, tmp_path / "graph.onnx")
    changed = onnx.load(tmp_path / "graph.onnx")
    assert Fusion(changed).skip_mask() == expected
    onnx.checker.check_model(changed)
    onnx.save(changed, tmp_path / "whole.onnx")
    assert [node.op_type for node in changed.graph.node].count("If") == expected
    before, after = (GraphScorer(tmp_path / f"{name}.onnx", model.layout, tokenizer) for name in ("graph", "whole"))
    rows = batching.units([before.pipeline.pack(tokens) for tokens in before.pipeline.tokenize(GROUPS)])
    alone, together = (batching.collate(model.layout, some) for some in (rows[:1], rows))
    assert alone["block_ids"].min() >= 0 > together["block_ids"].min(), "one pass has padding and one has none"
    for arrays in (alone, together):
        np.testing.assert_allclose(after._forward(arrays), before._forward(arrays), rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("kind", cases(("set_encoder", "deberta-v2", "mpnet", "llama"), "mpnet".__eq__))
def test_masks_that_are_more_than_padding_stay(kind, tmp_path):
    model, _ = model_of(kind, tmp_path)
    graph.to_onnx(model, tmp_path / "graph.onnx")
    kept = onnx.load(tmp_path / "graph.onnx")
    assert Fusion(kept).use_key_lengths() == 0
    with pytest.raises(ExportError, match="key_lengths: the attention of this model reads a mask that is more than"):
        half.fp16(tmp_path / "graph.onnx", key_lengths=True)


def test_key_lengths_are_for_fp16(tmp_path):
    with pytest.raises(ConfigError, match="key_lengths is for precision fp16"):
        ranker.export_onnx(tmp_path, key_lengths=True)


@pytest.mark.full
def test_an_fp16_file_with_key_lengths_passes_its_gate(tmp_path):
    native.save(*tiny("pointwise"), tmp_path / "checkpoint")
    report = ranker.export_onnx(tmp_path / "checkpoint", tmp_path / "m.onnx", precision="fp16", key_lengths=True)
    assert report.quantization["key_lengths"] is True
    parity.check(report, "fp16")


@pytest.fixture
def card(monkeypatch):
    """Pretends that there is a GPU, whose scores differ by ``card.error``."""

    class Card:
        error = 0.0
        opened = ()

    class Scorer(OnnxScorer):
        def __init__(self, path, *, device):
            Card.opened += (device,)
            super().__init__(path, device="cpu")
            self.error = Card.error if device == "cuda" else 0.0

        def score(self, groups, **options):
            results = super().score(groups, **options)
            for number, result in enumerate(results):
                result.scores[:] += self.error * (-1) ** number * np.arange(len(result.scores))
            return results

    monkeypatch.setattr(write, "on_graphics", lambda device: True)
    monkeypatch.setattr(write, "OnnxScorer", Scorer)
    return Card


@pytest.mark.full
def test_parity_is_measured_on_a_gpu_too(card, model, tmp_path):
    report = write.export(model.parent / "checkpoint", {"fp32": tmp_path / "m.onnx"}, rows=ROWS)["fp32"]
    assert card.opened == ("cpu", "cuda")
    assert report.cuda["max_difference"] == report.max_difference
    assert OnnxScorer(tmp_path / "m.onnx", device="cpu").manifest.parity["cuda"]["flips"] == 0


@pytest.mark.full
def test_a_file_that_says_other_things_on_a_gpu_is_not_written(card, model, tmp_path):
    card.error = 0.1
    with pytest.raises(ParityError, match="fp32 loses too much"):
        write.export(model.parent / "checkpoint", {"fp32": tmp_path / "m.onnx"}, rows=ROWS)
    assert list(tmp_path.iterdir()) == []
