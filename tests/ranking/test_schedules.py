import math
from typing import get_args

import numpy as np
import pytest

from ranker.ranking.schedules import (
    SCHEDULES,
    ScheduleName,
    active,
    circulant,
    default_budget,
    quicksort,
    sequential_halving,
    swiss_rounds,
)


def played(schedule, n, strengths=None, seed=0, **options):
    """All rounds of a schedule among candidates of known strengths, without noise."""
    strengths = np.arange(n, 0, -1.0) if strengths is None else strengths
    steps = schedule(n, np.random.default_rng(seed), **options)
    rounds = []
    pairs = next(steps, None)
    while pairs is not None:
        rounds.append(pairs)
        try:
            pairs = steps.send(np.array([strengths[a] - strengths[b] for a, b in pairs], np.float32))
        except StopIteration:
            pairs = None
    return rounds


def flat(rounds):
    return [tuple(sorted(pair)) for pairs in rounds for pair in pairs]


def test_every_name_has_a_schedule():
    assert set(SCHEDULES) == set(get_args(ScheduleName))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 16, 33])
def test_pairs_are_of_two_and_met_once_and_the_seed_decides(name, n):
    rounds = played(SCHEDULES[name], n)
    pairs = flat(rounds)
    assert len(pairs) == len(set(pairs))
    assert all(0 <= a < b < n for a, b in pairs)
    assert rounds == played(SCHEDULES[name], n)
    if n >= 7:
        assert rounds != played(SCHEDULES[name], n, seed=1)
        assert {i for pair in pairs for i in pair} == set(range(n))
    if n == 2:
        assert pairs == [(0, 1)]


@pytest.mark.parametrize("n", [2, 5, 8, 13, 64])
def test_numbers_of_comparisons_and_rounds(n):
    pairs, log = n * (n - 1) // 2, math.ceil(math.log2(n))
    (everything,) = played(SCHEDULES["all"], n)
    assert len(everything) == pairs
    knockout = played(SCHEDULES["knockout"], n)
    assert (len(flat(knockout)), len(knockout)) == (n - 1, log)
    swiss = played(SCHEDULES["swiss"], n)
    assert len(swiss) <= swiss_rounds(n) == log + 1
    assert len(flat(swiss)) <= n // 2 * swiss_rounds(n)
    (circle,) = played(circulant, n)
    assert len(circle) == (1 if n == 2 else min(2 * n, n * ((n - 1) // 2)))
    for budget in (n, 2 * n, 4 * n):
        assert len(flat(played(sequential_halving, n, budget=budget))) <= budget
        assert len(flat(played(active, n, budget=budget))) <= budget


def test_the_default_grows_as_n_log_n():
    assert default_budget(16) == 120
    assert default_budget(64) == 384
    assert default_budget(256) == 2048
    assert default_budget(3) == 3


@pytest.mark.parametrize("name", ["all", "knockout", "quicksort", "swiss", "circulant", "sequential_halving", "active"])
def test_without_noise_the_best_is_never_beaten_and_found(name):
    from ranker.ranking.aggregation import Comparisons, least_squares

    strengths = np.random.default_rng(3).normal(size=24)
    seen = Comparisons(24)
    for pairs in played(SCHEDULES[name], 24, strengths):
        seen.add(pairs, [strengths[a] - strengths[b] for a, b in pairs])
    np.testing.assert_allclose(least_squares(seen).scores, strengths - strengths.mean(), atol=1e-5)


def test_sort_asks_enough_to_know_the_whole_order():
    strengths = np.random.default_rng(3).normal(size=40)
    pairs = set(flat(played(quicksort, 40, strengths)))
    order = np.argsort(-strengths)
    neighbours = {tuple(sorted((int(a), int(b)))) for a, b in zip(order, order[1:], strict=False)}
    assert neighbours <= pairs, "two that lie next to each other can be told apart only by meeting"
    assert len(pairs) < 2.5 * 40 * math.log2(40)


def test_each_is_read_first_about_half_of_the_time():
    pairs = [pair for pairs in played(SCHEDULES["all"], 40) for pair in pairs]
    first = np.mean([a < b for a, b in pairs])
    assert 0.45 < first < 0.55


def test_sequential_halving_spends_most_on_those_in_front():
    strengths = np.arange(64, 0, -1.0)
    counts = np.zeros(64)
    for a, b in flat(played(sequential_halving, 64, strengths)):
        counts[[a, b]] += 1
    assert counts[:4].min() > 3 * np.median(counts)


def test_active_stops_when_it_is_sure_and_spends_its_budget_when_it_is_not():
    rng = np.random.default_rng(0)
    clear = np.zeros(24)
    clear[7] = 9.0
    noise = rng.normal(size=(24, 24)) * 0.5
    noise -= noise.T

    def ask(strengths, budget):
        seen, steps = [], active(24, np.random.default_rng(1), budget=budget)
        pairs = next(steps)
        while pairs:
            seen += pairs
            try:
                pairs = steps.send(np.array([strengths[a] - strengths[b] + noise[a, b] for a, b in pairs]))
            except StopIteration:
                pairs = []
        return seen

    assert len(ask(clear, 200)) == 48, "the circle alone says who is best"
    close = ask(np.zeros(24), 200)
    assert len(close) == 200
    assert len({tuple(sorted(pair)) for pair in close}) == 200
    two = np.zeros(24)
    two[[3, 11]] = 5.0
    later = ask(two, 200)[48:78]
    assert sum(bool({3, 11} & set(pair)) for pair in later) > 0.9 * len(later), "the two in front meet the others first"
