"""From scores to ranks. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.scoring.protocol import Floats


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranked group of N candidates.

    ``order`` (N,) are candidate indices, best first; ``ranks`` (N,) the rank of each candidate, 1 the best, equal
    scores sharing the better rank; ``scores`` (N,) raw fp32 logits.
    """

    order: NDArray[np.intp]
    ranks: NDArray[np.intp]
    scores: Floats


def rank_scores(scores: Floats) -> Ranking:
    """Rank scores (N,), higher is better; ties keep their input order in ``order`` and share a rank.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got {scores.tolist()}")
    order = np.argsort(-scores, kind="stable")
    ranks = 1 + (scores[None, :] > scores[:, None]).sum(axis=1)
    return Ranking(order, ranks, scores)
