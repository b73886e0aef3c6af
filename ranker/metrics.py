"""Formulas that training, export and evaluation share: figures of comparisons with count and interval. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ranker.records import Preference
from ranker.scoring.protocol import GroupScores
from ranker.text.templates import render_prompt

Z95 = 1.959963984540054
"""Two-sided 95 % normal quantile."""


@overload
def sigmoid(x: float) -> float: ...
@overload
def sigmoid(x: NDArray[np.floating]) -> NDArray[np.float64]: ...
def sigmoid(x: float | NDArray[np.floating]) -> float | NDArray[np.float64]:
    """The logistic function ``1 / (1 + exp(-x))`` without overflow: logits to probabilities, both of the same shape.

    Computed in fp64; NaN stays NaN. A number gives a ``float``.
    """
    probabilities = np.exp(-np.logaddexp(0.0, -np.asarray(x, np.float64)))
    return probabilities if isinstance(x, np.ndarray) else float(probabilities)


def top_margin(scores: NDArray[np.floating]) -> float | None:
    """By how many logits the best of the scores (N,) leads the second best; None for fewer than two."""
    if len(scores) < 2:
        return None
    second, best = np.sort(scores)[-2:]
    return float(best - second)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its 95 % interval, and the count of comparisons or prompts behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"  # one prompt gives no interval
        return f"{self.value:.3f}{interval} (n={self.n})"


class Share(Estimate):
    """A proportion with its 95 % Wilson interval; ties may count half."""

    __slots__ = ()


def wilson(successes: float, n: float) -> Share:
    """Share of ``successes`` in ``n`` trials with its Wilson 95 % interval (Wilson 1927); n = 0 gives NaN."""
    if n == 0:
        return Share(math.nan, math.nan, math.nan, 0)
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Share(p, max(0.0, centre - half), min(1.0, centre + half), round(n))


def clustered(credits: NDArray[np.float64], groups: NDArray[np.intp]) -> Share:
    """Share of ``credits`` with a Wilson 95 % interval that treats comparisons of one prompt as dependent.

    The interval is Wilson's for the effective count ``p (1 - p) / v``, where ``v`` is the variance of the ratio
    estimator over groups (Cochran, Sampling Techniques, section 9A.2). With one comparison per group it is the plain
    Wilson interval. Where the variance is zero, the count is the number of groups. Comparisons of a single group have
    no interval (NaN).
    """
    n = len(credits)
    if n == 0:
        return wilson(0, 0)
    p = float(credits.mean())
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index)
    count = len(sizes)
    if count == n:
        return wilson(float(credits.sum()), n)
    if count == 1:
        return Share(p, math.nan, math.nan, n)
    residuals = np.bincount(index, weights=credits) - p * sizes
    variance = float((residuals**2).sum()) / n**2 * count / max(1, count - 1)
    effective = min(float(n), p * (1 - p) / variance) if variance > 0 else float(count)
    return replace(wilson(p * effective, effective), value=p, n=n)


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Comparisons of scored, labelled groups, flat.

    ``logits`` (n,) log-odds that the left answer is better, ``targets`` (n,) the labelled probability, ``groups`` (n,)
    the row each came from, ``indices`` (n, 2) its candidates, ``prompts`` (n,) the number of its prompt: rows with the
    same prompt have the same number, because their comparisons are not independent.
    """

    logits: NDArray[np.float64]
    targets: NDArray[np.float64]
    groups: NDArray[np.intp]
    indices: NDArray[np.intp]
    prompts: NDArray[np.intp]

    def where(self, keep: NDArray[np.bool_]) -> Comparisons:
        """The comparisons that ``keep`` selects."""
        return Comparisons(
            self.logits[keep], self.targets[keep], self.groups[keep], self.indices[keep], self.prompts[keep]
        )


def prompt_numbers(preferences: Sequence[Preference]) -> NDArray[np.intp]:
    """The number of each row's prompt: (rows,).

    Rows whose prompts have the same text have the same number. Every row with an empty prompt has a number of its own,
    because nothing says that such rows belong together.
    """
    numbers: dict[str | int, int] = {}
    keys = ((render_prompt(preference.prompt) or row) for row, preference in enumerate(preferences))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)


def comparisons(preferences: Sequence[Preference], results: Sequence[GroupScores]) -> Comparisons:
    """All labelled comparisons of scored groups; groups with an error and missing labels are left out.

    Several tasks are averaged to one target: the share of the labelled tasks that prefer the left answer.
    """
    logits = []
    targets = []
    groups = []
    indices = []
    for number, (preference, result) in enumerate(zip(preferences, results, strict=True)):
        if result.error is not None:
            continue
        for i, j, target in preference.pairs():
            known = [t for t in target if t == t]
            if known:
                logits.append(float(result.scores[i]) - float(result.scores[j]))
                targets.append(sum(known) / len(known))
                groups.append(number)
                indices.append((i, j))
    return Comparisons(
        np.array(logits, np.float64),
        np.array(targets, np.float64),
        np.array(groups, np.intp),
        np.array(indices, np.intp).reshape(-1, 2),
        prompt_numbers(preferences)[np.array(groups, np.intp)],
    )


def accuracy(compared: Comparisons) -> Share:
    """Share of decided comparisons (target not 0.5) whose sign is right; a logit of exactly 0 counts half.

    The interval is ``clustered`` by prompt.
    """
    decided = compared.where(compared.targets != 0.5)
    return clustered(credit(decided), decided.prompts)


def credit(compared: Comparisons) -> NDArray[np.float64]:
    """1 for each comparison whose sign is right, 0 where it is wrong, 0.5 for a logit of exactly 0: (n,)."""
    right = np.sign(compared.logits) == np.sign(compared.targets - 0.5)
    return np.where(compared.logits == 0, 0.5, right.astype(np.float64))


def log_losses(compared: Comparisons) -> NDArray[np.float64]:
    """``-t log p - (1 - t) log(1 - p)`` of each comparison with ``p = sigmoid(logit)``, in nats: (n,)."""
    x, t = compared.logits, compared.targets
    losses: NDArray[np.float64] = t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    return losses


def briers(compared: Comparisons) -> NDArray[np.float64]:
    """``(p - t)^2`` of each comparison with ``p = sigmoid(logit)``: (n,)."""
    squares: NDArray[np.float64] = (sigmoid(compared.logits) - compared.targets) ** 2
    return squares


def log_loss(compared: Comparisons) -> float:
    """Mean of ``log_losses``."""
    return float(log_losses(compared).mean()) if len(compared.logits) else math.nan


def brier(compared: Comparisons) -> float:
    """Mean of ``briers``."""
    return float(briers(compared).mean()) if len(compared.logits) else math.nan


def leads(decided: Comparisons) -> NDArray[np.float64]:
    """By how many logits the preferred answer leads in each decided comparison: (n,)."""
    return decided.logits * np.sign(decided.targets - 0.5)


def answer_labels(
    preferences: Sequence[Preference], results: Sequence[GroupScores]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Scores (n,), labels (n,) and numbers of prompts (n,) of all answers that have both; tasks are averaged."""
    scores: list[float] = []
    labels: list[float] = []
    rows: list[int] = []
    for number, (preference, result) in enumerate(zip(preferences, results, strict=True)):
        if result.error is not None:
            continue
        for score, values in zip(result.scores.tolist(), preference.labels(), strict=True):
            known = [value for value in values if value == value]
            if known:
                scores.append(score)
                labels.append(sum(known) / len(known))
                rows.append(number)
    prompts = prompt_numbers(preferences)[np.array(rows, np.intp)]
    return np.array(scores, np.float64), np.array(labels, np.float64), prompts


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's rank correlation (equal values share their mean rank); NaN where either has only one value."""
    ranks = [_mean_ranks(values) for values in (x, y)]
    deviations = [values - values.mean() for values in ranks] if len(x) else [x, y]
    scale = math.sqrt(float((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float(deviations[0] @ deviations[1]) / scale if scale > 0 else math.nan


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return means


def rmse(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Root of the mean squared difference; NaN of nothing."""
    return math.sqrt(float(((scores - labels) ** 2).mean())) if len(scores) else math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one evaluation of comparisons. Losses in nats, margins in logits towards the preferred answer."""

    accuracy: Share
    ties: int
    log_loss: float
    brier: float
    mean_margin: float
    failed: int


def pairwise_summary(preferences: Sequence[Preference], results: Sequence[GroupScores]) -> Summary:
    """Accuracy, predicted ties, log-loss, Brier score and mean margin over all labelled comparisons."""
    return summarise(comparisons(preferences, results), failed=sum(r.error is not None for r in results))


def summarise(compared: Comparisons, *, failed: int = 0) -> Summary:
    """``pairwise_summary`` of comparisons that are already there."""
    decided = compared.where(compared.targets != 0.5)
    margin = leads(decided)
    return Summary(
        accuracy=accuracy(compared),
        ties=int((decided.logits == 0).sum()),
        log_loss=log_loss(compared),
        brier=brier(compared),
        mean_margin=float(margin.mean()) if len(margin) else math.nan,
        failed=failed,
    )
