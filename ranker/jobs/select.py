"""What comes out of a scored row: the row, its best answer, or a pair for preference training; or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ranker.data.files import Row, rename_collisions
from ranker.jobs.keep import rule
from ranker.records import Group
from ranker.scoring.protocol import GroupScores
from ranker.text.templates import render_prompt

Make = Literal["rows", "best", "pairs"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows come out, and as what.

    ``keep`` is an expression (``ranker.jobs.keep``), None keeps all that were scored. ``make``: ``rows`` as they are,
    ``best`` with the best candidate as ``best``, ``pairs`` of best and worst candidate (``prompt``, ``chosen``,
    ``rejected``, ``margin``). ``drop_ties`` leaves out rows whose best (of pairs: best and worst) have one score.
    """

    keep: str | None = None
    make: Make = "rows"
    drop_ties: bool = False


Select = Callable[[Row, Group, GroupScores], Row | None]


def selector(selection: Selection) -> Select:
    """The function of a selection: a row with its results, its group and its scores -> what comes out, or None.

    Raises:
        ConfigError: an invalid expression.
    """
    keeps = rule(selection.keep) if selection.keep is not None else lambda values: True

    def select(row: Row, group: Group, result: GroupScores) -> Row | None:
        if not keeps(numbers(group, result)):
            return None
        order = np.argsort(-result.scores, kind="stable")
        if selection.drop_ties and _tied(result, order, selection.make):
            return None
        return MAKERS[selection.make](row, group, result, order)

    return select


def numbers(group: Group, result: GroupScores) -> dict[str, Any]:
    """What expressions may name."""
    best = int(result.scores.argmax()) if len(result.scores) else None
    ordered = np.sort(result.scores)[::-1]
    return {
        "score": None if best is None else float(result.scores[best]),
        "margin": float(ordered[0] - ordered[1]) if len(ordered) > 1 else None,
        "truncated": None if best is None else bool(result.truncated[best]),
        "candidates": len(group.candidates),
        "characters": None if best is None else len(group.candidates[best]),
    }


def _tied(result: GroupScores, order: Any, make: Make) -> bool:
    if len(order) < 2:
        return False
    other = order[-1] if make == "pairs" else order[1]
    return bool(result.scores[order[0]] == result.scores[other])


def _row(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    return row


def _best(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    return rename_collisions(row, ("best",)) | {"best": group.candidates[order[0]]} if len(order) else None


def _pair(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    if len(order) < 2 or group.candidates[order[0]] == group.candidates[order[-1]]:
        return None
    return {
        "prompt": render_prompt(group.prompt),
        "chosen": group.candidates[order[0]],
        "rejected": group.candidates[order[-1]],
        "margin": float(result.scores[order[0]] - result.scores[order[-1]]),
    }


MAKERS: Final[dict[Make, Callable[[Row, Group, GroupScores, Any], Row | None]]] = {
    "rows": _row,
    "best": _best,
    "pairs": _pair,
}
