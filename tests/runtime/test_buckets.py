"""Padding to few shapes changes no score; run on a CPU, which needs it least."""

import numpy as np
import pytest

from ranker.data.sample import build
from ranker.export import graph
from ranker.models import pointwise
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.buckets import Bound, bucket
from ranker.runtime.onnx_scorer import GraphScorer
from tests.conftest import LAYOUTS, tiny
from tests.models.test_reward import save_backbone

GROUPS = [
    Group(row["prompt"], tuple(row["candidates"][: 1 + i % 4]))
    for i, row in zip(range(12), build.rows("validation"), strict=False)
]


def test_sizes_are_few_and_close():
    assert [bucket(n) for n in (1, 5, 7, 8, 9, 11, 16, 17, 21, 100, 512)] == [1, 6, 8, 8, 10, 12, 16, 20, 24, 112, 512]
    for n in range(1, 3000):
        assert n <= bucket(n) <= 1.34 * n
        assert bucket(bucket(n)) == bucket(n)
    assert len({bucket(n) for n in range(1, 4097)}) < 45


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
    bound = GraphScorer(tmp_path / "graph.onnx", model.layout, tokenizer, device="cpu")
    bound.workers = 1  # inputs that are bound are one pass's
    bound._bound = Bound(bound.session, model.layout, "cpu")
    expected = TorchScorer(model, tokenizer).score(GROUPS)
    for tokens in (64, 500, 2000):
        plain.max_tokens_per_forward = bound.max_tokens_per_forward = tokens
        for _ in range(2):
            for a, b, c in zip(expected, plain.score(GROUPS), bound.score(GROUPS), strict=True):
                assert c.error is None
                np.testing.assert_allclose(c.scores, b.scores, rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(c.scores, a.scores, rtol=1e-4, atol=1e-4)
    shapes = set(bound._bound._shapes)
    assert all(bucket(size) == size for key in shapes for shape in key for size in shape)
