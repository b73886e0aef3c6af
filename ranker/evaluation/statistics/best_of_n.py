"""The gold score of the answer that the model chooses among n, exact over all draws of n."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import mean
from ranker.metrics import Estimate
from ranker.scoring.protocol import GroupScores


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The gold score of the best of ``n`` by the model, of the best by the gold score, and of a random answer.

    ``kl`` is the divergence of best-of-n from the policy in nats, log n - (n - 1) / n (arXiv 2009.01325).
    """

    n: int
    kl: float
    chosen: Estimate
    oracle: Estimate
    random: Estimate


def best_of_n(
    gold: Sequence[Sequence[float]],
    results: Sequence[GroupScores],
    sizes: Sequence[int],
    prompts: NDArray[np.intp] | None = None,
) -> list[BestOfN]:
    """The curve over ``sizes``; groups with fewer candidates than n, an error, or a missing gold score are left out.

    Args:
        gold: (candidates,) gold scores per group.
        results: the model's scores.
        sizes: numbers of candidates.
        prompts: (groups,) the number of each group's prompt. Default: every group has a prompt of its own.
    """
    points = []
    numbers = np.arange(len(gold)) if prompts is None else prompts
    for n in sizes:
        kept = [
            k
            for k, (g, r) in enumerate(zip(gold, results, strict=True))
            if r.error is None and len(g) >= n and not np.isnan(g).any()
        ]
        rows = [(np.array(gold[k], np.float64), results[k].scores.astype(np.float64)) for k in kept]
        chosen = mean(np.array([expected(g, s, n) for g, s in rows]), numbers[kept])
        oracle = mean(np.array([expected(g, g, n) for g, _ in rows]), numbers[kept])
        random = mean(np.array([g.mean() for g, _ in rows]), numbers[kept])
        points.append(BestOfN(n, float(np.log(n) - (n - 1) / n), chosen, oracle, random))
    return points


def expected(gold: NDArray[np.float64], scores: NDArray[np.float64], n: int) -> float:
    """Mean gold score of the highest-scored of n drawn without replacement, over all draws (as arXiv 2107.03374).

    Equal scores are equally likely to be chosen, so they count with their mean gold score.

    Raises:
        ValueError: n is not between 1 and the number of candidates.
    """
    m = len(scores)
    if not 1 <= n <= m:
        raise ValueError(f"expected n between 1 and {m} candidates, got {n}")
    order = np.argsort(scores, kind="stable")
    ranked = gold[order]
    values, inverse = np.unique(scores[order], return_inverse=True)
    if len(values) < m:
        ranked = (np.bincount(inverse, ranked) / np.bincount(inverse))[inverse]
    places = np.arange(1, m + 1)
    highest = np.where(places >= n, np.exp(_log_choose(np.maximum(places - 1, n - 1), n - 1) - _log_choose(m, n)), 0.0)
    return float(highest @ ranked)


def _log_choose(m: NDArray[np.intp] | int, k: int) -> NDArray[np.float64]:
    numbers = np.atleast_1d(m)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n in numbers.tolist()]
    return np.array(logs, np.float64)
