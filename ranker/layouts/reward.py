"""What the layouts of reward models share: one row per candidate, whose outputs become one score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from ranker.layouts.layout import Arrays, Layout, Output, Row, padded


def _mean(outputs: Any) -> Any:
    """The mean over the last axis; most heads have one output."""
    return outputs[..., 0] if outputs.shape[-1] == 1 else outputs.mean(-1)


REDUCTIONS: Final[dict[Output, Callable[[Any], Any]]] = {
    "scalar": _mean,
    "aspects": _mean,
    "gated": lambda outputs: outputs[..., 0],
    "accept_reject": lambda outputs: outputs[..., 1] - outputs[..., 0],
}
"""From a candidate's outputs to its score: their mean, the gated score, or the log-odds of accept."""


class RewardLayout(Layout):
    """A row per candidate; scores compare across prompts."""

    output: Output = "scalar"

    scores_are_relative: ClassVar[bool] = False

    @property
    def extra_input(self) -> str | None:
        """``readout`` (rows, 1) of a gated model: where the gate reads the prompt."""
        return "readout" if self.output == "gated" else None

    def extra_arrays(self, units: Sequence[Sequence[Row]]) -> Arrays:
        """``readout``: of a gated model, and of rows that hold several candidates after one prompt."""
        rows = [row for unit in units for row in unit]
        return {"readout": padded([row.readout for row in rows])} if rows[0].readout else {}

    def reduce(self, outputs: Any) -> Any:
        """See ``Layout.reduce``; by ``output``."""
        return REDUCTIONS[self.output](outputs)

    @abstractmethod
    def row_lengths(self, prompt: int, candidates: Sequence[int]) -> list[tuple[int, int]]:
        """(tokens up to the answer, tokens) of each candidate's row, from the lengths that ``cost`` takes."""
