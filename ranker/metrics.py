"""Numbers about comparisons, each with its count and interval. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranker.records import Preference
from ranker.scoring.protocol import GroupScores
from ranker.text.templates import render_prompt

Z95 = 1.959963984540054
"""Two-sided 95 % normal quantile."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its 95 % interval, and how many comparisons or prompts it is from."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


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


def clustered(credit: NDArray[np.float64], groups: NDArray[np.intp]) -> Share:
    """Share of ``credit`` with a Wilson 95 % interval that knows that comparisons of one prompt are not independent.

    The interval is Wilson's for the effective count ``p (1 - p) / v``, where ``v`` is the variance of the ratio
    estimator over groups (Cochran, Sampling Techniques, section 9A.2); with one comparison per group it is Wilson's
    own. Where the variance is zero the count is that of the groups. Comparisons of one group only have no interval
    (NaN).
    """
    n = len(credit)
    if n == 0:
        return wilson(0, 0)
    p = float(credit.mean())
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index)
    count = len(sizes)
    if count == n:
        return wilson(float(credit.sum()), n)
    if count == 1:
        return Share(p, math.nan, math.nan, n)
    residuals = np.bincount(index, weights=credit) - p * sizes
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
    """Of each row the number of its prompt as text: (rows,).

    Rows with the same prompt have the same number. Rows with an empty prompt have one each: nothing says that they
    belong together.
    """
    numbers: dict[str | int, int] = {}
    keys = ((render_prompt(preference.prompt) or row) for row, preference in enumerate(preferences))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)


def comparisons(preferences: Sequence[Preference], results: Sequence[GroupScores]) -> Comparisons:
    """All labelled comparisons of scored groups; groups with an error and missing labels are left out.

    Several tasks are averaged to one target: the share of the labelled tasks that prefer the left answer.
    """
    logits, targets, groups, indices = [], [], [], []
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


def accuracy(found: Comparisons) -> Share:
    """Share of decided comparisons (target not 0.5) whose sign is right; a logit of exactly 0 counts half.

    The interval is ``clustered`` by prompt.
    """
    decided = found.where(found.targets != 0.5)
    return clustered(_credit(decided), decided.prompts)


def log_losses(found: Comparisons) -> NDArray[np.float64]:
    """``-t log p - (1 - t) log(1 - p)`` of each comparison with ``p = sigmoid(logit)``, in nats: (n,)."""
    x, t = found.logits, found.targets
    losses: NDArray[np.float64] = t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    return losses


def briers(found: Comparisons) -> NDArray[np.float64]:
    """``(p - t)^2`` of each comparison with ``p = sigmoid(logit)``: (n,)."""
    probability = np.exp(-np.logaddexp(0, -found.logits))
    squares: NDArray[np.float64] = (probability - found.targets) ** 2
    return squares


def log_loss(found: Comparisons) -> float:
    """Mean of ``log_losses``."""
    return float(log_losses(found).mean()) if len(found.logits) else math.nan


def brier(found: Comparisons) -> float:
    """Mean of ``briers``."""
    return float(briers(found).mean()) if len(found.logits) else math.nan


def leads(decided: Comparisons) -> NDArray[np.float64]:
    """By how many logits the preferred answer leads in each decided comparison: (n,)."""
    return decided.logits * np.sign(decided.targets - 0.5)


@dataclass(frozen=True, slots=True)
class Summary:
    """What one evaluation of comparisons says. Losses in nats, margins in logits towards the preferred answer."""

    accuracy: Share
    ties: int
    log_loss: float
    brier: float
    mean_margin: float
    failed: int


def pairwise_summary(preferences: Sequence[Preference], results: Sequence[GroupScores]) -> Summary:
    """Accuracy, predicted ties, log-loss, Brier score and mean margin over all labelled comparisons."""
    return summarise(comparisons(preferences, results), failed=sum(r.error is not None for r in results))


def summarise(found: Comparisons, *, failed: int = 0) -> Summary:
    """The same from comparisons already made."""
    decided = found.where(found.targets != 0.5)
    margin = leads(decided)
    return Summary(
        accuracy=accuracy(found),
        ties=int((decided.logits == 0).sum()),
        log_loss=log_loss(found),
        brier=brier(found),
        mean_margin=float(margin.mean()) if len(margin) else math.nan,
        failed=failed,
    )


def _credit(found: Comparisons) -> NDArray[np.float64]:
    right = np.sign(found.logits) == np.sign(found.targets - 0.5)
    return np.where(found.logits == 0, 0.5, right.astype(np.float64))
