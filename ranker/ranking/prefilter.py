"""A cheap model scores all candidates, an expensive one the best of them."""

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
"""Logits between the last candidate that was looked at closely and the first that was not."""


def prefiltered(
    first: Scorer,
    second: Scorer,
    groups: Sequence[Group],
    *,
    keep: int = 8,
    schedule: Choice | None = None,
    budget: int | None = None,
) -> Sequence[GroupScores]:
    """Rank the ``keep`` best candidates by ``first`` again with ``second``; the others come after them.

    Scores of the ``keep`` are those of ``second``. The others keep the differences that ``first`` sees between them,
    ``GAP`` below the last of the ``keep``: an order, and no log-odds.

    Args:
        first: scores every candidate, most often a pointwise model.
        second: ranks what is kept, most often a pairwise one.
        groups: may have any numbers of candidates.
        keep: how many of each are looked at closely.
        schedule: as in ``tournament.ranked``, of ``second``.
        budget: as in ``tournament.ranked``, of ``second``.

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
