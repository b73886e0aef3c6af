"""Bound buffers, one for each of few shapes, change no score; run on a CPU, which needs them least."""

import numpy as np
import pytest

from ranker.data.sample import build
from ranker.export import graph
from ranker.models import pointwise
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.bound import Bound
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.scoring.buckets import count_bucket, length_bucket
from tests.conftest import LAYOUTS, tiny
from tests.models.test_reward import save_backbone

GROUPS = [
    Group(row["prompt"], tuple(row["candidates"][: 1 + i % 4]))
    for i, row in zip(range(12), build.rows("validation"), strict=False)
]


def model_of(layout, folder):
    if layout is None:
        model, tokenizer = pointwise.from_backbone(
            str(save_backbone(folder, "llama")), output="scalar", max_length=128, prompt_reserve=32
        )
        return model.eval(), tokenizer
    return tiny(layout)


@pytest.mark.full
@pytest.mark.parametrize("layout", [*LAYOUTS, None])
def test_bound_inputs_of_few_shapes_score_alike(layout, tmp_path):
    model, tokenizer = model_of(layout, tmp_path / "backbone")
    graph.to_onnx(model, tmp_path / "graph.onnx")
    plain = GraphScorer(tmp_path / "graph.onnx", model.layout, tokenizer, device="cpu")
    bound = GraphScorer(tmp_path / "graph.onnx", model.layout, tokenizer, device="cpu", length_buckets=True)
    bound.workers = 1  # inputs that are bound are one pass's
    bound._bound = Bound(bound.session, "cpu")
    expected = TorchScorer(model, tokenizer).score(GROUPS)
    for tokens in (64, 500, 2000):
        plain.max_tokens_per_forward = bound.max_tokens_per_forward = tokens
        for _ in range(2):
            for a, b, c in zip(expected, plain.score(GROUPS), bound.score(GROUPS), strict=True):
                assert c.error is None
                np.testing.assert_allclose(c.scores, b.scores, rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(c.scores, a.scores, rtol=1e-4, atol=1e-4)
    shapes = set(bound._bound._shapes)
    assert all(length_bucket(length) == length for (_, length), *_ in shapes)
    full = (64, 500, 2000)
    assert all(
        rows == count_bucket(rows) or rows in [tokens // length for tokens in full] for (rows, length), *_ in shapes
    )
