"""Does the model prefer long answers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import clustered, mean
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate, Share, accuracy, prompt_numbers
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores

RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Length in characters against scores and decisions.

    ``correlation`` is Spearman's within prompts, averaged; accuracies are of comparisons whose preferred answer is
    longer, shorter, or as long; ``controlled`` is the accuracy that a logistic regression on the logarithm of the ratio
    of lengths expects where both are as long.
    """

    correlation: Estimate
    longer: Share
    shorter: Share
    equal: Share
    controlled: Estimate


def length_bias(
    preferences: Sequence[Preference], results: Sequence[GroupScores], found: Comparisons, *, relative: bool
) -> LengthBias:
    """Measure it.

    Args:
        preferences: labelled rows.
        results: the model's scores of them.
        found: the comparisons of ``results`` by the labels of ``preferences``.
        relative: whether scores are comparable within a row only; otherwise the answers of all rows with the same
            prompt are taken together.
    """
    lengths = [np.array([len(c) for c in p.candidates], np.float64) for p in preferences]
    decided = found.where(found.targets != 0.5)
    left, right = (
        np.array([lengths[k][pair[side]] for k, pair in zip(decided.groups, decided.indices, strict=True)])
        for side in (0, 1)
    )
    ratio = np.log((left + 1) / (right + 1)) * np.sign(decided.targets - 0.5) if len(decided.logits) else np.zeros(0)
    correct = np.where(decided.logits == 0, 0.5, np.sign(decided.logits) == np.sign(decided.targets - 0.5))
    return LengthBias(
        _within_prompts(preferences, lengths, results, relative),
        accuracy(decided.where(ratio > 0)),
        accuracy(decided.where(ratio < 0)),
        accuracy(decided.where(ratio == 0)),
        clustered(decided.prompts, lambda rows: _at_zero(ratio[rows], correct[rows]), resamples=RESAMPLES),
    )


def _within_prompts(
    preferences: Sequence[Preference],
    lengths: Sequence[NDArray[np.float64]],
    results: Sequence[GroupScores],
    relative: bool,
) -> Estimate:
    """Mean over prompts of the correlation of length and score."""
    prompts = prompt_numbers(preferences)
    good = [k for k, result in enumerate(results) if result.error is None]
    if relative:
        values = np.array([_spearman(lengths[k], results[k].scores) for k in good])
        return mean(values, prompts[good])
    answers: dict[int, dict[str, tuple[float, float]]] = {}
    for k in good:
        own = answers.setdefault(int(prompts[k]), {})
        columns = (preferences[k].candidates, lengths[k].tolist(), results[k].scores.tolist())
        own.update({text: (length, score) for text, length, score in zip(*columns, strict=True)})
    tables = [np.array([*own.values()], np.float64).reshape(-1, 2) for own in answers.values()]
    return mean(np.array([_spearman(table[:, 0], table[:, 1]) for table in tables]))


def _spearman(lengths: NDArray[np.float64], scores: NDArray[Any]) -> float:
    if len(set(lengths.tolist())) < 2 or len(set(scores.tolist())) < 2:
        return float("nan")
    return float(require("scipy.stats").spearmanr(lengths, scores).statistic)


def _at_zero(ratio: NDArray[np.float64], correct: NDArray[np.float64]) -> float:
    """The logistic regression's probability of being right at equal lengths (Newton's method); a tie is half right."""
    design = np.stack([np.ones_like(ratio), ratio], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        information = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (correct - chance) - 1e-6 * weights)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-weights[0])))
