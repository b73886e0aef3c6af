"""Percentile bootstrap over whole prompts: rows with the same prompt are drawn together (Efron 1979)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.metrics import Estimate

RESAMPLES: Final = 1000
NOTHING: Final = Estimate(math.nan, math.nan, math.nan, 0)


def rows_by_prompt(prompts: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The row numbers of every prompt, from the number of each row's prompt (rows,)."""
    order = np.argsort(prompts, kind="stable")
    _, starts = np.unique(prompts[order], return_index=True)
    return np.split(order, starts[1:])


def resampled(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """``resamples`` draws of ``count`` numbers below ``count``, with replacement: (count,) each."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(count, size=count)


def interval(draws: Sequence[Any]) -> tuple[Any, Any]:
    """The 2.5 and 97.5 % percentiles of the draws' statistics, NaN left out; NaN without draws.

    Numbers give numbers, arrays (n,) give arrays (n,).
    """
    if not draws:
        return math.nan, math.nan
    low, high = np.nanpercentile(draws, (2.5, 97.5), axis=0)
    return low, high


def mean(values: NDArray[np.float64], prompts: NDArray[np.intp] | None = None, seed: int = 0) -> Estimate:
    """The mean of one number per row, NaN left out, with its bootstrap interval.

    Args:
        values: (rows,).
        prompts: (rows,) the number of each row's prompt. Default: every row has a prompt of its own.
        seed: decides the draws.
    """
    known = ~np.isnan(values)
    return clustered_mean(values[known], np.arange(len(values))[known] if prompts is None else prompts[known], seed)


def clustered_mean(values: NDArray[np.float64], prompts: NDArray[np.intp], seed: int = 0) -> Estimate:
    """``clustered`` for means, without a loop over rows; n counts the rows.

    Several rows of a single prompt have no interval (NaN).
    """
    if not len(values):
        return NOTHING
    _, index = np.unique(prompts, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    if len(sums) == 1 < len(values):
        return Estimate(float(values.mean()), math.nan, math.nan, len(values))
    low, high = interval([sums[drawn].sum() / counts[drawn].sum() for drawn in resampled(len(sums), RESAMPLES, seed)])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def clustered(
    prompts: NDArray[np.intp], statistic: Callable[[NDArray[np.intp]], float], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """A statistic of rows with its bootstrap interval; n counts the prompts.

    Args:
        prompts: (rows,) the number of each row's prompt.
        statistic: from row numbers, which may repeat, to the number.
        seed: decides the draws.
        resamples: number of draws.
    """
    if not len(prompts):
        return NOTHING
    parts = rows_by_prompt(prompts)
    value = statistic(np.arange(len(prompts)))
    if len(parts) == 1 < len(prompts):
        return Estimate(value, math.nan, math.nan, 1)
    low, high = interval(
        [statistic(np.concatenate([parts[i] for i in drawn])) for drawn in resampled(len(parts), resamples, seed)]
    )
    return Estimate(value, float(low), float(high), len(parts))
