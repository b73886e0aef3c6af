"""Are the probabilities calibrated? Reliability, expected calibration error, and the temperature that corrects them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import clustered
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate, log_loss, sigmoid

BINS: Final = 15
"""Bins of equal mass (arXiv 1706.04599 has bins of equal width, most of them empty for a good ranker)."""

RESAMPLES: Final = 200
TEMPERATURES: Final = (0.02, 50.0)
"""The range in which the temperature is searched."""

FLAT: Final = 1e-6
"""Nats by which the best temperature must beat both ends of the search; otherwise there is no minimum inside it."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Per bin (bins,) the mean probability, the share that was right, and the count; ``error`` over all bins."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.intp]
    error: Estimate


def reliability(compared: Comparisons) -> Reliability:
    """How often the left answer is preferred, by the probability that the model gives it.

    Every comparison counts in both directions; otherwise the figure would depend on the side of the preferred answer.
    """
    predicted, observed, counts = _bins(compared.logits, compared.targets)
    error = clustered(
        compared.prompts, lambda rows: _error(compared.logits[rows], compared.targets[rows]), resamples=RESAMPLES
    )
    return Reliability(predicted, observed, counts, error)


def expected_calibration_error(compared: Comparisons) -> float:
    """Mean distance of probability and outcome over ``BINS`` bins of equal mass, comparisons in both directions."""
    return _error(compared.logits, compared.targets)


def _bins(
    logits: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    both = np.concatenate([logits, -logits])
    outcome = np.concatenate([targets, 1 - targets])
    order = np.argsort(both, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    chance = sigmoid(both)
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
    """``sigmoid(logit / value)`` fits best; ``before`` and ``after`` are log-losses in nats on the half not fitted on.

    ``problem`` says why the temperature should not be used; it is empty for a usable one.
    """

    value: float
    before: float
    after: float
    n: int
    problem: str = ""


def temperature(compared: Comparisons) -> Temperature:
    """Fit a temperature on the comparisons of every other prompt and measure it on the rest (arXiv 1706.04599).

    Raises:
        ValueError: fewer than two prompts.
    """
    _, number = np.unique(compared.prompts, return_inverse=True)
    if len(number) == 0 or number.max() < 1:
        raise ValueError("expected comparisons of at least two prompts to fit a temperature on one half of them")
    fitted, held = compared.where(number % 2 == 0), compared.where(number % 2 == 1)

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


def _divided(compared: Comparisons, value: float) -> Comparisons:
    return replace(compared, logits=compared.logits / value)
