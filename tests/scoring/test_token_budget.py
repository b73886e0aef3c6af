"""Finding how many padded tokens a pass reads."""

import pytest

from ranker.scoring import token_budget
from ranker.scoring.token_budget import TokenBudget


def test_the_fastest_choice_is_taken_after_each_was_tried(monkeypatch):
    clock = iter(range(1000))
    seconds = {10: 3, 20: 1, 40: 2}
    now = [0.0]
    monkeypatch.setattr(token_budget.time, "perf_counter", lambda: now[0])
    budgets = []
    budget = TokenBudget((10, 20, 40), budgets.append)
    used = []
    while not budget.settled:
        with budget.timed(budget.slice_tokens) as tokens:
            used.append(tokens)
            now[0] += seconds[tokens] * (1 + next(clock) % 2)
    assert sorted(used) == sorted([10, 20, 40] * token_budget.TRIALS)
    assert budgets == [20]
    assert budget.tokens == 20
    assert budget.slice_tokens == 20 * token_budget.BATCHES


def test_the_first_choice_is_left_only_for_one_that_is_clearly_faster(monkeypatch):
    for seconds, best in (({10: 100, 20: 97, 40: 93}, 10), ({10: 100, 20: 80, 40: 95}, 20)):
        now = [0.0]
        monkeypatch.setattr(token_budget.time, "perf_counter", lambda now=now: now[0])
        budget = TokenBudget((10, 20, 40))
        while not budget.settled:
            with budget.timed(budget.slice_tokens) as tokens:
                now[0] += seconds[tokens]
        assert budget.tokens == best


def test_one_choice_is_settled_from_the_start():
    budget = TokenBudget((10,))
    assert budget.settled
    assert budget.tokens == 10


def test_a_slice_that_is_not_full_is_not_timed():
    budget = TokenBudget((10, 20))
    with budget.timed(5) as tokens:
        assert tokens == 10
    assert budget.tokens == 10
    assert not budget.settled


def test_a_slice_that_failed_is_not_timed():
    budget = TokenBudget((10, 20))
    with pytest.raises(ValueError, match="out of memory"), budget.timed(10_000):
        raise ValueError("out of memory")
    assert budget.tokens == 10


@pytest.mark.parametrize("choices", [(10,), (10, 20)])
def test_slices_hold_enough_for_all_workers(choices):
    assert TokenBudget(choices, workers=40).slice_tokens > TokenBudget(choices, workers=1).slice_tokens
