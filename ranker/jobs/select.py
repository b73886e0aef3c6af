"""Which scored rows a job writes, and in which form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ranker.data.files import Row, rename_collisions
from ranker.errors import ConfigError
from ranker.jobs.keep import rule
from ranker.metrics import top_margin
from ranker.records import Group, plain_answer, plain_prompt
from ranker.scoring.protocol import GroupScores

OutputRows = Literal["rows", "best", "pairs"]
"""What becomes of a selected row: the row, the row with its best answer, or a pair for preference training."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a job writes, and in which form.

    ``keep`` is an expression (``ranker.jobs.keep``); None keeps all scored rows. ``output_rows``: ``rows`` as they are,
    ``best`` with the best candidate in the column ``best``, ``pairs`` of best and worst candidate (``prompt``,
    ``chosen``, ``rejected``, ``margin``), all texts or, where one is messages, all messages. ``drop_ties`` leaves out
    rows whose two best candidates (``pairs``: best and worst) have the same score.
    """

    keep: str | None = None
    output_rows: OutputRows = "rows"
    drop_ties: bool = False

    def facts(self) -> dict[str, Any]:
        """The entries of a job's plan."""
        return {"keep": self.keep, "make": self.output_rows, "drop_ties": self.drop_ties}


Select = Callable[[Row, Group, GroupScores], Row | None]


def selector(selection: Selection) -> Select:
    """The function of a selection: from a row with results, its group and its scores to the output row, or None.

    Raises:
        ConfigError: an invalid expression, or an unknown form of the rows.
    """
    if selection.output_rows not in OUTPUTS:
        raise ConfigError(f"output_rows: expected {', '.join(OUTPUTS)}, got {selection.output_rows!r:.40}")
    keeps = rule(selection.keep) if selection.keep is not None else lambda values: True

    def select(row: Row, group: Group, result: GroupScores) -> Row | None:
        if not keeps(numbers(group, result)):
            return None
        order = np.argsort(-result.scores, kind="stable")
        if selection.drop_ties and _tied(result, order, selection.output_rows):
            return None
        return OUTPUTS[selection.output_rows](row, group, result, order)

    return select


def numbers(group: Group, result: GroupScores) -> dict[str, Any]:
    """The values that expressions may name (``ranker.jobs.keep.NAMES``)."""
    best = int(result.scores.argmax()) if len(result.scores) else None
    return {
        "score": None if best is None else float(result.scores[best]),
        "margin": top_margin(result.scores),
        "truncated": None if best is None else bool(result.truncated[best]),
        "prompt_truncated": None if best is None else result.prompt_truncated,
        "candidates": len(group.candidates),
        "characters": None if best is None else len(group.candidates[best]),
    }


def _tied(result: GroupScores, order: Any, output_rows: OutputRows) -> bool:
    if len(order) < 2:
        return False
    other = order[-1] if output_rows == "pairs" else order[1]
    return bool(result.scores[order[0]] == result.scores[other])


def _row(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    return row


def _best(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    return (
        rename_collisions(row, ("best",)) | {"best": plain_answer(group.candidates[order[0]])} if len(order) else None
    )


def _pair(row: Row, group: Group, result: GroupScores, order: Any) -> Row | None:
    if len(order) < 2 or group.candidates[order[0]] == group.candidates[order[-1]]:
        return None
    prompt, best, worst = plain_prompt(group.prompt), *(plain_answer(group.candidates[order[i]]) for i in (0, -1))
    if any(isinstance(value, list) for value in (prompt, best, worst)):  # TRL takes texts or messages, not both
        prompt = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        best, worst = ([{"role": "assistant", "content": v}] if isinstance(v, str) else v for v in (best, worst))
    return {
        "prompt": prompt,
        "chosen": best,
        "rejected": worst,
        "margin": float(result.scores[order[0]] - result.scores[order[-1]]),
    }


OUTPUTS: Final[dict[OutputRows, Callable[[Row, Group, GroupScores, Any], Row | None]]] = {
    "rows": _row,
    "best": _best,
    "pairs": _pair,
}
