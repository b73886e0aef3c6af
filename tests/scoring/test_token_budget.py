import time

import numpy as np
import pytest

from ranker.records import Group
from ranker.scoring import token_budget
from ranker.scoring.executor import CHUNK_GROUPS, prefetched, score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.token_budget import TokenBudget
from tests.conftest import tiny


def test_the_fastest_choice_is_taken_after_each_was_tried(monkeypatch):
    clock = iter(range(1000))
    seconds = {10: 3, 20: 1, 40: 2}
    now = [0.0]
    monkeypatch.setattr(token_budget.time, "perf_counter", lambda: now[0])
    found = []
    budget = TokenBudget((10, 20, 40), found.append)
    used = []
    while not budget.settled:
        with budget.timed(budget.slice_tokens) as tokens:
            used.append(tokens)
            now[0] += seconds[tokens] * (1 + next(clock) % 2)
    assert sorted(used) == sorted([10, 20, 40] * token_budget.TRIALS)
    assert found == [20]
    assert budget.tokens == 20
    assert budget.slice_tokens == 20 * token_budget.BATCHES


def test_slices_that_are_not_full_or_that_failed_are_not_timed():
    budget = TokenBudget((10, 20))
    with budget.timed(5) as tokens:
        assert tokens == 10
    with pytest.raises(ValueError, match="out of memory"), budget.timed(10_000):
        raise ValueError("out of memory")
    assert budget.tokens == 10
    assert not budget.settled


def test_many_groups_are_read_slice_by_slice_in_order_with_a_budget_found_on_the_way():
    model, tokenizer = tiny("pointwise")
    pipeline = TextPipeline(model.layout, tokenizer)
    groups = [Group(f"prompt {i % 7}", (f"answer {i}", f"{i} " * (i % 5 + 1))) for i in range(3 * CHUNK_GROUPS)]
    batches = []

    def forward(arrays):
        batches.append(arrays["input_ids"].size)
        present = arrays["block_ids"] >= 0
        return (arrays["input_ids"] * present * np.arange(1, present.shape[1] + 1)).sum(1)[:, None, None] * np.float32(
            1
        )

    budget = TokenBudget((64, 256))
    results = score_groups(pipeline, groups, forward, budget)
    expected = score_groups(pipeline, groups, forward, 10_000)
    assert budget.settled
    assert max(batches[: len(batches) // 2]) <= 256
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)


def test_the_next_item_is_made_while_the_last_is_used():
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield i

    for i in prefetched(items()):
        if i == 0:
            time.sleep(0.2)
            assert made == [0, 1]
    assert made == [0, 1, 2]


def test_what_goes_wrong_ahead_is_raised_in_its_place():
    def items():
        yield 1
        raise ValueError("broken text")

    got = []
    with pytest.raises(ValueError, match="broken text"):
        got.extend(prefetched(items()))
    assert got == [1]
