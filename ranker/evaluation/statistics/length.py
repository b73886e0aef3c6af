"""Does the model prefer long answers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.evaluation.statistics.bootstrap import clustered, mean
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate, Share, accuracy, credit, prompt_numbers, sigmoid
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores

RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Length in characters against scores and decisions.

    ``correlation`` is Spearman's within prompts, averaged; accuracies are of comparisons whose preferred answer is
    longer, shorter, or equally long; ``controlled`` is the accuracy at equal length, by a logistic regression on the
    logarithm of the ratio of lengths. It has no rows where the preferred answers are all longer, or all shorter: such
    comparisons say nothing of equal lengths.
    """

    correlation: Estimate
    longer: Share
    shorter: Share
    equal: Share
    controlled: Estimate


def length_bias(
    preferences: Sequence[Preference], results: Sequence[GroupScores], compared: Comparisons, *, relative: bool
) -> LengthBias:
    """Measure how scores and decisions depend on length.

    Args:
        preferences: labelled rows.
        results: the model's scores of them.
        compared: the comparisons of ``results`` by the labels of ``preferences``.
        relative: whether scores are comparable only within a row; otherwise the answers of all rows with the same
            prompt are one group.
    """
    lengths = [np.array([len(c) for c in p.candidates], np.float64) for p in preferences]
    decided = compared.where(compared.targets != 0.5)
    left, right = (
        np.array([lengths[k][pair[side]] for k, pair in zip(decided.groups, decided.indices, strict=True)])
        for side in (0, 1)
    )
    ratio = np.log((left + 1) / (right + 1)) * np.sign(decided.targets - 0.5) if len(decided.logits) else np.zeros(0)
    correct = credit(decided)
    both_sides = (ratio <= 0).any() and (ratio >= 0).any()
    return LengthBias(
        _within_prompts(preferences, lengths, results, relative),
        accuracy(decided.where(ratio > 0)),
        accuracy(decided.where(ratio < 0)),
        accuracy(decided.where(ratio == 0)),
        clustered(
            decided.prompts if both_sides else decided.prompts[:0],
            lambda rows: _at_zero(ratio[rows], correct[rows]),
            resamples=RESAMPLES,
        ),
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
        prompt_answers = answers.setdefault(int(prompts[k]), {})
        columns = (preferences[k].candidates, lengths[k].tolist(), results[k].scores.tolist())
        prompt_answers.update({text: (length, score) for text, length, score in zip(*columns, strict=True)})
    tables = [np.array([*prompt_answers.values()], np.float64).reshape(-1, 2) for prompt_answers in answers.values()]
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
        chance = sigmoid(np.clip(design @ weights, -30, 30))
        information = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (correct - chance) - 1e-6 * weights)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return sigmoid(float(weights[0]))
