"""Means with 95 % intervals from resampling whole prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.metrics import Estimate

RESAMPLES: Final = 1000


NOTHING: Final = Estimate(math.nan, math.nan, math.nan, 0)


def mean(values: NDArray[np.float64], prompts: NDArray[np.intp] | None = None, seed: int = 0) -> Estimate:
    """The mean of one number per row, NaN left out; percentile bootstrap (Efron 1979).

    Args:
        values: (rows,).
        prompts: (rows,) the number of each row's prompt; rows of one prompt are drawn together. Default: every row has
            a prompt of its own.
        seed: decides the draws.
    """
    known = ~np.isnan(values)
    return clustered_mean(values[known], np.arange(len(values))[known] if prompts is None else prompts[known], seed)


def clustered_mean(values: NDArray[np.float64], groups: NDArray[np.intp], seed: int = 0) -> Estimate:
    """The mean of rows whose prompts repeat: ``clustered`` for means, without a loop; n counts the rows.

    Several rows of one prompt alone have no interval (NaN).
    """
    if not len(values):
        return NOTHING
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    if len(sums) == 1 < len(values):
        return Estimate(float(values.mean()), math.nan, math.nan, len(values))
    rng, draws = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        picked = rng.integers(len(sums), size=len(sums))
        draws.append(sums[picked].sum() / counts[picked].sum())
    low, high = np.percentile(draws, (2.5, 97.5))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def clustered(
    groups: NDArray[np.intp], statistic: Callable[[NDArray[np.intp]], float], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of rows that hang together by prompt: whole prompts are drawn with replacement.

    Args:
        groups: (rows,) which prompt each row is of.
        statistic: from row numbers, which may repeat, to the number.
        seed: decides the draws.
        resamples: how many there are.
    """
    if not len(groups):
        return NOTHING
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    parts = np.split(order, starts[1:])
    if len(parts) == 1 < len(groups):
        return Estimate(statistic(np.arange(len(groups))), math.nan, math.nan, 1)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        picked = rng.integers(len(parts), size=len(parts))
        draws.append(statistic(np.concatenate([parts[i] for i in picked])))
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Estimate(statistic(np.arange(len(groups))), float(low), float(high), len(parts))
