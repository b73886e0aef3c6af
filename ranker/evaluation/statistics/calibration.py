"""Are probabilities what they say? Reliability, expected calibration error, and the temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import clustered
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate, log_loss

BINS: Final = 15
"""Bins of equal mass (arXiv 1706.04599 has bins of equal width, most of them empty for a good ranker)."""

RESAMPLES: Final = 200
TEMPERATURES: Final = (0.02, 50.0)
"""Between which the temperature is searched."""

FLAT: Final = 1e-6
"""Nats by which the best temperature must beat both ends of the search: else the search stopped, and found nothing."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Per bin (bins,) the mean probability, the share that was right, and the count; and the error over all."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.intp]
    error: Estimate


def reliability(found: Comparisons) -> Reliability:
    """How often the left answer is preferred, by how probable the model says that is.

    Every comparison counts in both directions, or the side that labels happen to be on would be measured.
    """
    predicted, observed, counts = _bins(found.logits, found.targets)
    error = clustered(found.prompts, lambda rows: _error(found.logits[rows], found.targets[rows]), resamples=RESAMPLES)
    return Reliability(predicted, observed, counts, error)


def expected_calibration_error(found: Comparisons) -> float:
    """Mean distance of probability and outcome over ``BINS`` bins of equal mass, comparisons in both directions."""
    return _error(found.logits, found.targets)


def _bins(
    logits: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    both = np.concatenate([logits, -logits])
    outcome = np.concatenate([targets, 1 - targets])
    order = np.argsort(both, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    chance = np.exp(-np.logaddexp(0, -both))
    return (
        np.array([chance[part].mean() for part in parts]),
        np.array([outcome[part].mean() for part in parts]),
        np.array([len(part) for part in parts], np.intp),
    )


def _error(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    predicted, observed, counts = _bins(logits, targets)
    return float(np.average(np.abs(predicted - observed), weights=counts)) if len(counts) else float("nan")


@dataclass(frozen=True, slots=True)
class Temperature:
    """``sigmoid(logit / value)`` fits best; log-losses in nats on the half it was not fitted on, before and after.

    ``problem`` says why the temperature should not be used; empty where it should.
    """

    value: float
    before: float
    after: float
    n: int
    problem: str = ""


def temperature(found: Comparisons) -> Temperature:
    """Fit a temperature on the comparisons of every other prompt and measure it on the rest (arXiv 1706.04599).

    Raises:
        ValueError: fewer than two prompts.
    """
    _, number = np.unique(found.prompts, return_inverse=True)
    if len(number) == 0 or number.max() < 1:
        raise ValueError("expected comparisons of at least two prompts to fit a temperature on one half of them")
    fitted, held = found.where(number % 2 == 0), found.where(number % 2 == 1)

    def loss(log_value: float) -> float:
        return log_loss(_divided(fitted, np.exp(log_value)))

    best = require("scipy.optimize").minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    value = float(np.exp(best.x))
    before, after = log_loss(held), log_loss(_divided(held, value))
    problem = ""
    if min(map(loss, np.log(TEMPERATURES))) <= best.fun + FLAT:
        problem = f"the search found no best temperature (it ended at {value:.3g}): too few comparisons, or all right"
    elif not after <= before:
        problem = f"log-loss on the prompts that it was not fitted on rises from {before:.3f} to {after:.3f}"
    return Temperature(value, before, after, len(held.logits), problem)


def _divided(found: Comparisons, value: float) -> Comparisons:
    return replace(found, logits=found.logits / value)
