"""Large groups for models that read all candidates at once: overlapping windows, and the scores that fit them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranker.ranking.aggregation import Doubles
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, Scorer, failed


@dataclass(frozen=True, slots=True)
class Windows:
    """Indices (size,) of each window over N candidates; any two candidates are connected through overlaps."""

    n: int
    parts: tuple[tuple[int, ...], ...]


def windows(n: int, size: int, rng: np.random.Generator) -> Windows:
    """Windows of ``size`` on a circle of N in random order, each sharing half of its candidates with the next.

    Raises:
        ValueError: a window of fewer than two.
    """
    if size < 2:
        raise ValueError(f"expected windows of at least 2 candidates, got {size}")
    if n <= size:
        return Windows(n, (tuple(range(n)),))
    circle = rng.permutation(n)
    step = max(1, size // 2)
    starts = range(0, n, step)
    return Windows(n, tuple(tuple(int(circle[(start + i) % n]) for i in range(size)) for start in starts))


def stitched(plan: Windows, scores: Sequence[Doubles]) -> Doubles:
    """The scores (N,) of mean zero that fit every window's scores up to a constant per window, by least squares."""
    rows = sum(len(part) for part in plan.parts)
    design = np.zeros((rows, plan.n + len(plan.parts)))
    values = np.concatenate(scores)
    row = 0
    for window, part in enumerate(plan.parts):
        for candidate in part:
            design[row, candidate] = design[row, plan.n + window] = 1
            row += 1
    fitted = np.asarray(np.linalg.lstsq(design, values, rcond=None)[0][: plan.n], np.float64)
    centred: Doubles = fitted - fitted.mean()
    return centred


def score(scorer: Scorer, groups: Sequence[Group], *, size: int, seed: int = 0) -> list[GroupScores]:
    """Score groups; those of more than ``size`` candidates in windows. All windows are one pass.

    A group fails when one of its windows fails.
    """
    plans = [windows(len(group.candidates), size, np.random.default_rng(seed)) for group in groups]
    window_groups = [
        Group(group.prompt, tuple(group.candidates[i] for i in part))
        for group, plan in zip(groups, plans, strict=True)
        for part in plan.parts
    ]
    results = iter(scorer.score(window_groups))
    return [
        _joined(group, plan, [next(results) for _ in plan.parts]) for group, plan in zip(groups, plans, strict=True)
    ]


def _joined(group: Group, plan: Windows, results: Sequence[GroupScores]) -> GroupScores:
    if len(results) == 1:
        return results[0]
    reason = next((result.error for result in results if result.error is not None), None)
    if reason is not None:
        return failed(group, reason)
    truncated = np.zeros(plan.n, np.bool_)
    for part, result in zip(plan.parts, results, strict=True):
        truncated[list(part)] |= result.truncated
    scores = stitched(plan, [result.scores.astype(np.float64) for result in results])
    return GroupScores(
        scores.astype(np.float32),
        truncated,
        any(result.prompt_truncated for result in results),
        sum(result.order_flips for result in results),
    )
