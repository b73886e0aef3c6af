"""Passes of few shapes: how few, how much padding, and no other scores."""

import random

import numpy as np
import pytest

from ranker.data.sample import build
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring import batching
from ranker.scoring.buckets import count_bucket, length_bucket, plan, shape_bucket
from tests.conftest import tiny
from tests.support.selection import cases

GROUPS = [
    Group(row["prompt"], tuple(row["candidates"][: 1 + i % 4]))
    for i, row in zip(range(12), build.rows("validation"), strict=False)
]
READ = (
    *[(layout, "bert") for layout in ("pointwise", "set_encoder", "shared_prompt", "ordered_pair")],
    *[("pointwise", family) for family in ("roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert")],
    ("set_encoder", "deberta-v2"),
)


def test_counts_are_few_and_close():
    assert [count_bucket(n) for n in (1, 5, 7, 8, 9, 11, 17, 100)] == [1, 6, 8, 8, 10, 12, 20, 112]
    for n in range(1, 3000):
        assert n <= count_bucket(n) <= 1.34 * n
        assert count_bucket(count_bucket(n)) == count_bucket(n)
    assert len({count_bucket(n) for n in range(1, 4097)}) < 45


def test_lengths_are_few_and_close():
    for n in range(1, 3000):
        assert n <= length_bucket(n) < n + 64
        assert length_bucket(n) % 8 == 0
        assert length_bucket(length_bucket(n)) == length_bucket(n)
    assert len({length_bucket(n) for n in range(1, 513)}) == 26


@pytest.mark.parametrize("median", [67, 122, 245])
def test_rows_of_natural_lengths_get_few_shapes_and_little_padding(median):
    budget = 16384
    rng = random.Random(0)
    lengths = [min(512, max(16, int(rng.lognormvariate(np.log(median), 0.6)))) for _ in range(50 * budget // median)]
    batches = plan(lengths, [1] * len(lengths), budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    shapes = [shape_bucket(len(batch), max(lengths[i] for i in batch), budget) for batch in batches]
    assert all(rows * length <= budget for rows, length in shapes)
    assert len(set(shapes)) <= 26
    assert 1 - sum(lengths) / sum(rows * length for rows, length in shapes) < 0.10


def test_items_of_several_rows_stay_together_and_within_the_budget():
    rng = random.Random(1)
    lengths, rows = [rng.randint(10, 300) for _ in range(400)], [rng.randint(2, 8) for _ in range(400)]
    batches = plan(lengths, rows, 4096)
    assert sorted(i for batch in batches for i in batch) == list(range(400))
    for batch in batches:
        count, length = shape_bucket(sum(rows[i] for i in batch), max(lengths[i] for i in batch), 4096)
        assert count * length <= 4096
        assert count >= sum(rows[i] for i in batch)


def test_an_item_beyond_the_budget_is_a_batch_of_its_own():
    assert plan([500, 20, 20], [4, 1, 1], 1000) == [[1, 2], [0]]
    assert shape_bucket(4, 500, 1000) == (4, 512)


@pytest.mark.parametrize(("layout", "family"), cases(READ, lambda case: case == ("set_encoder", "bert")))
def test_scores_are_those_of_passes_of_any_shape(layout, family):
    model, tokenizer = tiny(layout, family=family)
    shapes = []
    forward = TorchScorer._forward

    class Watched(TorchScorer):
        def _forward(self, arrays):
            shapes.append(arrays["input_ids"].shape)
            return forward(self, arrays)

    expected = TorchScorer(model, tokenizer).score(GROUPS)
    for tokens in (64, 500, 2000):
        for a, b in zip(
            expected,
            Watched(model, tokenizer, max_tokens_per_forward=tokens, length_buckets=True).score(GROUPS),
            strict=True,
        ):
            assert b.error is None
            np.testing.assert_allclose(b.scores, a.scores, rtol=1e-4, atol=2e-5)
    assert all(length_bucket(length) == length for _, length in shapes)


@pytest.mark.parametrize("layout", cases(["pointwise", "set_encoder", "ordered_pair"], "pointwise".__eq__))
def test_several_passes_in_flight_give_the_same_scores(layout):
    model, tokenizer = tiny(layout)
    options = {"max_tokens_per_forward": 300}
    one = TorchScorer(model, tokenizer, **options).score(GROUPS)
    three = TorchScorer(model, tokenizer, passes_in_flight=3, **options).score(GROUPS)
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)


def test_padded_tokens_are_rows_times_the_longest():
    pipeline = TorchScorer(*tiny("pointwise")).pipeline
    packed = [pipeline.pack(tokens) for tokens in pipeline.tokenize([Group("a prompt", ("short", "a longer answer"))])]
    units = batching.units(packed)
    assert batching.padded_tokens(units) == 2 * max(unit.length for unit in units)
