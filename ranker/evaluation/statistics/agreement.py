"""Agreement of the model's order of a prompt's answers with the labelled order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import mean
from ranker.extras import require
from ranker.metrics import Estimate
from ranker.scoring.protocol import GroupScores


@dataclass(frozen=True, slots=True)
class Agreement:
    """Means over prompts of Kendall's tau-b, Spearman's rho and NDCG (gains are labels above the prompt's lowest)."""

    tau_b: Estimate
    spearman: Estimate
    ndcg: Estimate


def agreement(
    gold: Sequence[Sequence[float]], results: Sequence[GroupScores], prompts: NDArray[np.intp] | None = None
) -> Agreement:
    """Compare per row; rows with an error, a missing label, or equal labels are left out.

    Args:
        gold: (candidates,) labels per row.
        results: the model's scores.
        prompts: (rows,) the number of each row's prompt. Default: every row has a prompt of its own.
    """
    numbers = np.arange(len(gold)) if prompts is None else prompts
    kept = [
        k
        for k, (g, r) in enumerate(zip(gold, results, strict=True))
        if r.error is None and not np.isnan(g).any() and len(set(g)) > 1
    ]
    rows = [(np.array(gold[k], np.float64), results[k].scores.astype(np.float64)) for k in kept]
    stats = require("scipy.stats")
    measures: tuple[Callable[[NDArray[np.float64], NDArray[np.float64]], float], ...] = (
        lambda g, s: float(stats.kendalltau(g, s).statistic) if len(set(s.tolist())) > 1 else 0.0,
        lambda g, s: float(stats.spearmanr(g, s).statistic) if len(set(s.tolist())) > 1 else 0.0,
        ndcg,
    )
    return Agreement(*(mean(np.array([measure(g, s) for g, s in rows]), numbers[kept]) for measure in measures))


def ndcg(gold: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Normalised discounted cumulative gain over all answers; equal scores share the mean discount of their ranks."""
    gains = gold - gold.min()
    discounts = 1 / np.log2(np.arange(2, len(gold) + 2))
    order = np.argsort(-scores, kind="stable")
    _, inverse = np.unique(-scores[order], return_inverse=True)
    shared = (np.bincount(inverse, discounts) / np.bincount(inverse))[inverse]
    best = np.sort(gains)[::-1] @ discounts
    return float(gains[order] @ shared / best) if best > 0 else float("nan")
