"""A cheap model scores all candidates, an expensive one only the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.ranking.tournament import Choice, ranked
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, Scorer, failed

GAP: Final = 1.0
"""Logits between the last candidate that both models scored and the first that only the cheap one did."""


def prefiltered(
    first: Scorer,
    second: Scorer,
    groups: Sequence[Group],
    *,
    keep: int = 8,
    schedule: Choice | None = None,
    budget: int | None = None,
) -> Sequence[GroupScores]:
    """Rank all candidates with ``first``, then the ``keep`` best again with ``second``.

    The ``keep`` best have the scores of ``second``. The rest follow ``GAP`` below the last of them, with the
    differences of ``first``: these scores give an order, not log-odds.

    Args:
        first: scores every candidate, most often a pointwise model.
        second: ranks the ``keep`` best, most often a pairwise model.
        groups: may have any numbers of candidates.
        keep: candidates of each group that ``second`` scores.
        schedule: as in ``tournament.ranked``, for ``second``.
        budget: as in ``tournament.ranked``, for ``second``.

    Raises:
        ConfigError: fewer than two are kept.
    """
    if keep < 2:
        raise ConfigError(f"expected to keep at least 2 candidates, got {keep}")
    rough = ranked(first, groups)
    kept = [np.argsort(-result.scores, kind="stable")[:keep] for result in rough]
    small = [Group(g.prompt, tuple(g.candidates[i] for i in best)) for g, best in zip(groups, kept, strict=True)]
    fine = ranked(second, small, schedule, budget)
    return [_joined(*one) for one in zip(groups, rough, kept, fine, strict=True)]


def _joined(group: Group, rough: GroupScores, kept: NDArray[np.intp], fine: GroupScores) -> GroupScores:
    error = rough.error or fine.error
    if error is not None:
        return failed(group, error)
    scores, truncated = rough.scores.copy(), rough.truncated.copy()
    rest = np.setdiff1d(np.arange(len(scores)), kept)
    if len(rest):
        scores[rest] += fine.scores.min() - GAP - scores[rest].max()
    scores[kept] = fine.scores
    truncated[kept] |= fine.truncated
    prompt_truncated = rough.prompt_truncated or fine.prompt_truncated
    return replace(fine, scores=scores, truncated=truncated, prompt_truncated=prompt_truncated)
