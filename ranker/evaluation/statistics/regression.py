"""How near scores of single answers come to their labels, where rows hold no comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.evaluation.statistics.bootstrap import clustered
from ranker.metrics import Estimate, answer_labels, rmse, spearman
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores

RESAMPLES: Final = 300


@dataclass(frozen=True, slots=True)
class Regression:
    """Scores against labels over all answers; intervals are over prompts.

    Attributes:
        spearman: rank correlation of score and label.
        rmse: root of the mean squared difference, in units of the label; of meaning for models that were trained on
            labels (``mse``, ``rmse``, ``huber``).
        mean_rmse: the RMSE of a constant, the mean of the labels, which a model must beat.
        length_spearman: rank correlation of the answer's length and the label.
        n: answers with a label and a score.
    """

    spearman: Estimate
    rmse: Estimate
    mean_rmse: float
    length_spearman: float
    n: int


def regression(preferences: Sequence[Preference], results: Sequence[GroupScores]) -> Regression | None:
    """The figures of answers that have a label and a score; None without any."""
    scores, labels, prompts = answer_labels(preferences, results)
    if not len(scores):
        return None
    lengths = [
        GroupScores(np.array([len(c) for c in p.candidates], np.float32), r.truncated, error=r.error)
        for p, r in zip(preferences, results, strict=True)
    ]
    by_length, _, _ = answer_labels(preferences, lengths)
    return Regression(
        spearman=clustered(prompts, lambda rows: spearman(scores[rows], labels[rows]), resamples=RESAMPLES),
        rmse=clustered(prompts, lambda rows: rmse(scores[rows], labels[rows]), resamples=RESAMPLES),
        mean_rmse=rmse(np.full(len(labels), labels.mean()), labels),
        length_spearman=spearman(by_length, labels),
        n=len(scores),
    )
