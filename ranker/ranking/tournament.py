"""Plays schedules over a ``Scorer``: the rounds of all groups together, each round one batch of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError, nearest
from ranker.ranking import windows
from ranker.ranking.aggregation import AGGREGATORS, Aggregate, AggregatorName, Comparisons, cycles, win_matrix
from ranker.ranking.ranks import Ranking, rank_scores
from ranker.ranking.schedules import (
    SCHEDULES,
    Rounds,
    Schedule,
    ScheduleName,
    active,
    all_pairs,
    default_budget,
    knockout,
    sequential_halving,
)
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, Scorer, failed

Choice = Literal["auto", ScheduleName]
WINDOW: Final = 64
"""Most candidates that a model reads at once; it reads larger groups in overlapping windows."""


@dataclass(frozen=True, slots=True)
class Played(GroupScores):
    """Scores from comparisons: their number, their rounds, and the probability that the first is the best."""

    comparisons: int = 0
    rounds: int = 0
    confidence: float = float("nan")


@dataclass(frozen=True, slots=True)
class Tournament:
    """The result of one group of N candidates.

    ``aggregate`` holds scores (N,), their errors and the bias; ``seen`` every comparison; ``rounds`` counts the passes
    that the group waited for. ``truncated`` (N,) says which candidates were cut in a comparison, ``prompt_truncated``
    whether the prompt was. ``order_flips`` counts the comparisons whose winner changes when the two answers change
    places, where the model reads both orders. With an ``error`` there is no ranking.
    """

    seen: Comparisons
    rounds: int
    aggregate: Aggregate
    truncated: NDArray[np.bool_]
    prompt_truncated: bool = False
    order_flips: int = 0
    error: str | None = None

    @property
    def ranking(self) -> Ranking:
        """Order, ranks and scores.

        Raises:
            ValueError: the group failed.
        """
        if self.error is not None:
            raise ValueError(self.error)
        return rank_scores(self.aggregate.scores.astype(np.float32))

    @property
    def confidence(self) -> float:
        """Probability that the first of the ranking is the best."""
        return self.aggregate.confidence()

    @property
    def win_matrix(self) -> NDArray[np.float64]:
        """Probabilities (N, N) that the row beats the column, NaN where they did not meet."""
        return win_matrix(self.seen)

    @property
    def cycles(self) -> tuple[int, int]:
        """The number of cyclic triples, and the number of triples that met pairwise."""
        return cycles(self.seen)


def play(
    scorer: Scorer,
    groups: Sequence[Group],
    *,
    schedule: Choice = "auto",
    budget: int | None = None,
    aggregator: AggregatorName = "least_squares",
    seed: int = 0,
) -> list[Tournament]:
    """Rank groups by comparisons.

    Args:
        scorer: compares pairs; those of all groups' rounds are one batch.
        groups: may have any numbers of candidates.
        schedule: which pairs are compared; ``auto`` by the number of candidates and the budget.
        budget: most comparisons of a group, for ``auto``, ``sequential_halving`` and ``active``.
        aggregator: how comparisons become scores.
        seed: decides pairs and orders; those of a group do not depend on the other groups.

    Returns:
        One tournament per group, in order. A tournament ends with an error when a pair fails, or when the budget is
        below the N - 1 comparisons that reach every candidate.

    Raises:
        ConfigError: an unknown schedule or aggregator, or a budget for a schedule that has its own number.
    """
    _check(schedule, budget, aggregator)
    tournaments = [_Running(group, schedule, budget, seed) for group in groups]
    while running := [one for one in tournaments if one.pairs]:
        pairs = [Group(one.group.prompt, one.texts(pair)) for one in running for pair in one.pairs]
        results = iter(scorer.score(pairs))
        for one in running:
            one.advance([next(results) for _ in one.pairs])
    fit = AGGREGATORS[aggregator]
    return [
        Tournament(one.seen, one.rounds, fit(one.seen), one.truncated, one.prompt_truncated, one.order_flips, one.error)
        for one in tournaments
    ]


def ranked(
    scorer: Scorer, groups: Sequence[Group], schedule: Choice | None = None, budget: int | None = None
) -> Sequence[GroupScores]:
    """Scores of groups by whole passes, or by comparisons (``Played``) with a schedule or a budget."""
    if schedule is None and budget is None:
        return windows.score(scorer, groups, size=WINDOW) if scorer.info.scores_are_relative else scorer.score(groups)
    return [_scores(tournament) for tournament in play(scorer, groups, schedule=schedule or "auto", budget=budget)]


def _scores(tournament: Tournament) -> Played:
    scores = np.full(tournament.seen.n, np.nan) if tournament.error is not None else tournament.aggregate.scores
    return Played(
        scores.astype(np.float32),
        tournament.truncated,
        tournament.prompt_truncated,
        tournament.order_flips,
        tournament.error,
        comparisons=len(tournament.seen),
        rounds=tournament.rounds,
        confidence=tournament.confidence,
    )


def with_reference(scorer: Scorer, groups: Sequence[Group], references: Sequence[str]) -> list[GroupScores]:
    """Scores that are the log-odds of being better than the group's reference, from N comparisons per group."""
    pairs = [Group(g.prompt, (c, r)) for g, r in zip(groups, references, strict=True) for c in g.candidates]
    results = iter(scorer.score(pairs))
    return [_against(group, [next(results) for _ in group.candidates]) for group in groups]


def _against(group: Group, results: Sequence[GroupScores]) -> GroupScores:
    reason = next((result.error for result in results if result.error is not None), None)
    if reason is not None:
        return failed(group, reason)
    return GroupScores(
        np.array([result.scores[0] - result.scores[1] for result in results], np.float32),
        np.array([result.truncated[0] for result in results], np.bool_),
        any(result.prompt_truncated for result in results),
    )


def chosen(schedule: Choice, n: int, budget: int | None) -> Schedule:
    """The schedule for N candidates under a budget of comparisons."""
    if schedule in ("sequential_halving", "active"):
        return partial(active if schedule == "active" else sequential_halving, budget=budget)
    if schedule != "auto":
        return SCHEDULES[schedule]
    allowed = default_budget(n) if budget is None else budget
    if allowed >= n * (n - 1) // 2:
        return all_pairs
    return knockout if allowed < 2 * n else partial(sequential_halving, budget=allowed)


class _Running:
    """A group whose schedule is being played."""

    def __init__(self, group: Group, schedule: Choice, budget: int | None, seed: int) -> None:
        n = len(group.candidates)
        self.group = group
        self.seen = Comparisons(n)
        self.rounds = 0
        self.truncated = np.zeros(n, np.bool_)
        self.prompt_truncated = False
        self.order_flips = 0
        self.error: str | None = None
        self.pairs: list[tuple[int, int]] = []
        if budget is not None and budget < n - 1:
            self.error = f"a budget of {budget} comparisons is too small for {n} candidates; it takes at least {n - 1}"
            return
        self._steps: Rounds = chosen(schedule, n, budget)(n, np.random.default_rng(seed))
        self.pairs = next(self._steps, [])

    def texts(self, pair: tuple[int, int]) -> tuple[str, str]:
        """The two answers, in the order in which they are read."""
        return self.group.candidates[pair[0]], self.group.candidates[pair[1]]

    def advance(self, results: Sequence[GroupScores]) -> None:
        """Take a round's results and ask for the next."""
        for (a, b), result in zip(self.pairs, results, strict=True):
            if result.error is not None:
                self.error, self.pairs = f"candidates {a} and {b} could not be compared: {result.error}", []
                return
            self.truncated[[a, b]] |= result.truncated
            self.prompt_truncated |= result.prompt_truncated
            self.order_flips += result.order_flips
        logits = np.array([result.scores[0] - result.scores[1] for result in results])
        self.seen.add(self.pairs, logits)
        self.rounds += 1
        try:
            self.pairs = self._steps.send(logits)
        except StopIteration:
            self.pairs = []


def _check(schedule: str, budget: int | None, aggregator: str) -> None:
    names = get_args(ScheduleName)
    if schedule not in ("auto", *names):
        raise ConfigError(f"expected schedule auto, {', '.join(names)}; got '{schedule}'{nearest(schedule, names)}")
    if aggregator not in AGGREGATORS:
        raise ConfigError(
            f"expected aggregator {', '.join(AGGREGATORS)}; got '{aggregator}'{nearest(aggregator, AGGREGATORS)}"
        )
    if budget is not None and schedule not in ("auto", "sequential_halving", "active"):
        raise ConfigError(
            f"schedule '{schedule}' has its own number of comparisons; a budget is for auto, sequential_halving and "
            "active"
        )
