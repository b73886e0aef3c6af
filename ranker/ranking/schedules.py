"""Which pairs of N candidates are compared, round after round.

A schedule is a generator: it yields the pairs of a round, (first, second) in the order in which they are read, and is
sent their logits (pairs,), the log-odds that the first is better. Each pair is compared at most once. ``aggregation``
turns all comparisons into scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import combinations
from typing import Final, Literal

import numpy as np

from ranker.ranking.aggregation import DRAWS, Aggregate, Comparisons, least_squares
from ranker.scoring.protocol import Floats

CONFIDENCE: Final = 0.95
"""Probability that the first is the best, at which ``active`` stops."""

Pair = tuple[int, int]
Rounds = Generator[list[Pair], Floats, None]
Schedule = Callable[[int, np.random.Generator], Rounds]
"""From the number of candidates and a random generator to rounds."""

ScheduleName = Literal["all", "knockout", "quicksort", "swiss", "circulant", "sequential_halving", "active"]


def all_pairs(n: int, rng: np.random.Generator) -> Rounds:
    """Every pair once, in one round: N (N - 1) / 2 comparisons."""
    yield _ordered(combinations(range(n), 2), rng)


def knockout(n: int, rng: np.random.Generator) -> Rounds:
    """Winners go on until one is left: N - 1 comparisons in ceil(log2 N) rounds (arXiv 2501.13007)."""
    left = rng.permutation(n).tolist()
    while len(left) > 1:
        pairs = _ordered(zip(left[::2], left[1::2], strict=False), rng)
        logits = yield pairs
        winners = [a if logit > 0 else b for (a, b), logit in zip(pairs, logits, strict=True)]
        left = [*winners, *left[2 * len(pairs) :]]


def quicksort(n: int, rng: np.random.Generator) -> Rounds:
    """Quicksort, all partitions in one round: about 1.4 N log2 N comparisons in about 2 log2 N rounds.

    It takes fewer rounds than heapsort, whose comparisons wait for each other (arXiv 2505.24643).
    """
    parts = [rng.permutation(n).tolist()]
    while parts := [part for part in parts if len(part) > 1]:
        pairs = [_turned(part[0], other, rng) for part in parts for other in part[1:]]
        logits = iter((yield pairs))
        order = iter(pairs)
        split: list[list[int]] = []
        for part in parts:
            better: list[int] = []
            worse: list[int] = []
            for other in part[1:]:
                first, logit = next(order)[0], next(logits)
                (better if (logit > 0) == (first == other) else worse).append(other)
            split += [better, worse]
        parts = split


def swiss(n: int, rng: np.random.Generator) -> Rounds:
    """Neighbours of the ranking so far meet, ceil(log2 N) + 1 rounds: about N (log2 N + 1) / 2 comparisons."""
    seen = Comparisons(n)
    for _ in range(swiss_rounds(n)):
        pairs = _neighbours(seen, rng)
        if not pairs:
            return
        seen.add(pairs, (yield pairs))


def circulant(n: int, rng: np.random.Generator, k: int = 4) -> Rounds:
    """Every candidate meets its k nearest on a circle in random order, in one round: N k / 2 comparisons."""
    circle = rng.permutation(n)
    steps = range(1, min(k // 2, (n - 1) // 2) + 1)
    met = ((int(circle[i]), int(circle[(i + step) % n])) for step in steps for i in range(n))
    pairs = {(min(pair), max(pair)) for pair in met}
    if n == 2:
        pairs = {(0, 1)}
    yield _ordered(sorted(pairs), rng)


def sequential_halving(n: int, rng: np.random.Generator, budget: int | None = None) -> Rounds:
    """Sequential halving (Karnin et al. 2013): in every round the better half of the contenders meets more opponents.

    All contenders meet the same opponents, the leading ones first: results against a common opponent compare two
    contenders, however strong the opponent is. The rest of the budget goes to pairs among the leading candidates.

    Args:
        n: candidates.
        rng: random generator.
        budget: most comparisons; default ``default_budget``.
    """
    budget = default_budget(n) if budget is None else budget
    seen, rounds = Comparisons(n), swiss_rounds(n)
    order = rng.permutation(n).tolist()
    for number in range(rounds):
        contenders = order[: max(2, math.ceil(n / 2**number))]
        quota = (budget - len(seen)) // (rounds - number)
        pairs = _ordered(_with_the_first(contenders, order, seen, quota), rng)
        if pairs:
            seen.add(pairs, (yield pairs))
            scores = least_squares(seen).scores
            order.sort(key=lambda i: -scores[i])


def active(n: int, rng: np.random.Generator, budget: int | None = None, confidence: float = CONFIDENCE) -> Rounds:
    """Pairs that say most about which candidate is best, until ``confidence`` is reached or the budget is spent.

    After a round of ``circulant``, each round takes the pairs of likely winners whose difference is least certain.

    Args:
        n: candidates.
        rng: random generator.
        budget: most comparisons; default ``default_budget``.
        confidence: probability that the first is the best, at which the schedule stops.
    """
    budget = default_budget(n) if budget is None else budget
    seen = Comparisons(n)
    pairs = next(circulant(n, rng, 4 if budget >= 2 * n else 2))[:budget]
    while pairs:
        seen.add(pairs, (yield pairs))
        fit = least_squares(seen)
        if fit.confidence() >= confidence:
            return
        pairs = _ordered(_uncertain(fit, seen, min(max(1, n // 4), budget - len(seen))), rng)


SCHEDULES: Final[dict[ScheduleName, Schedule]] = {
    "all": all_pairs,
    "knockout": knockout,
    "quicksort": quicksort,
    "swiss": swiss,
    "circulant": circulant,
    "sequential_halving": sequential_halving,
    "active": active,
}


def swiss_rounds(n: int) -> int:
    """Rounds of a Swiss tournament among N."""
    return math.ceil(math.log2(n)) + 1 if n > 1 else 0


def default_budget(n: int) -> int:
    """Comparisons to spend if no budget is given: all pairs up to 16 candidates, N log2 N above."""
    pairs = n * (n - 1) // 2
    return pairs if n <= 16 else min(pairs, math.ceil(n * math.log2(n)))


def _neighbours(seen: Comparisons, rng: np.random.Generator) -> list[Pair]:
    """Pairs of a Swiss round: each candidate, best first, with the next one in the ranking that it has not met."""
    order = rng.permutation(seen.n).tolist()
    if len(seen):
        scores = least_squares(seen).scores
        order.sort(key=lambda i: -scores[i])
    pairs = []
    while order:
        one = order.pop(0)
        other = next((i for i in order if not seen.met(one, i)), None)
        if other is not None:
            order.remove(other)
            pairs.append((one, other))
    return _ordered(pairs, rng)


def _with_the_first(contenders: Sequence[int], order: Sequence[int], seen: Comparisons, most: int) -> list[Pair]:
    """Pairs that have not met: contenders with candidates of the ranking, best first, one opponent after the other."""
    pairs: dict[Pair, None] = {}
    for other in order:
        for one in contenders:
            if len(pairs) == most:
                return list(pairs)
            if one != other and not seen.met(one, other):
                pairs[min(one, other), max(one, other)] = None
    return list(pairs)


def _uncertain(fit: Aggregate, seen: Comparisons, most: int) -> list[Pair]:
    """Pairs that have not met, by the chance of each to be the best and the variance of their difference."""
    chance = np.sqrt(np.maximum(fit.chances(), 1 / DRAWS))
    variance = np.diag(fit.covariance)
    worth = np.outer(chance, chance) * (variance[:, None] + variance[None, :] - 2 * fit.covariance)
    worth[seen.first, seen.second] = worth[seen.second, seen.first] = -1
    a, b = np.triu_indices(seen.n, 1)
    order = np.argsort(-worth[a, b], kind="stable")[:most]
    return [(int(a[k]), int(b[k])) for k in order if worth[a[k], b[k]] >= 0]


def _ordered(pairs: Iterable[Pair], rng: np.random.Generator) -> list[Pair]:
    """Each pair in a random order, so that a bias towards a position averages out."""
    return [_turned(a, b, rng) for a, b in pairs]


def _turned(a: int, b: int, rng: np.random.Generator) -> Pair:
    return (a, b) if rng.random() < 0.5 else (b, a)
