"""One sequence per group: the prompt is read once, for all candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from ranker.layouts.blocks import Block, block_row
from ranker.layouts.layout import Arrays, Layout, PackedGroup, Row, padded
from ranker.text.tokenizer import Ids

STRUCTURE: Final = 3
"""[CLS], marker and [SEP] of a block."""


class SharedPrompt(Layout):
    """One sequence per group, block-sparse: block 0 ``[CLS] <source> prompt [SEP]``, block i ``[CLS] <candidate>
    candidate_i [SEP]``.

    A token sees its own block and block 0; block 0 sees everything. Positions begin again in every block, so the order
    of the candidates cannot matter. S + N C tokens for a prompt of S tokens and N candidates of C.
    """  # noqa: D205

    layout: Literal["shared_prompt"] = "shared_prompt"
    cls_id: int
    sep_id: int
    markers: tuple[int, int] = Field(description="ids of <source> and <candidate>")

    reads_padding_free: ClassVar[bool] = False
    reads_prompt_once: ClassVar[bool] = True

    @property
    def marker_ids(self) -> tuple[int, ...]:
        """See ``Layout.marker_ids``."""
        return self.markers

    @property
    def extra_input(self) -> str | None:
        """``readout`` (rows, 1 + candidates): the positions of the source and candidate markers, -1 absent."""
        return "readout"

    def extra_arrays(self, units: Sequence[Sequence[Row]]) -> Arrays:
        """See ``extra_input``."""
        return {"readout": padded([row.readout for unit in units for row in unit])}

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``; every block has ``max_length`` tokens of its own."""
        room = self.max_length - STRUCTURE
        source, marker = self.markers
        blocks: list[Block] = [([self.cls_id, source], prompt[max(0, len(prompt) - room) :])]
        blocks += [([self.cls_id, marker], candidate[:room]) for candidate in candidates]
        row = block_row(
            blocks,
            sep_id=self.sep_id,
            position_offset=self.position_offset,
            candidates=range(len(candidates)),
            restart=True,
            marker_at=1,
        )
        truncated = np.array([len(candidate) > room for candidate in candidates], np.bool_)
        return PackedGroup((row,) if candidates else (), truncated, np.full(len(candidates), len(prompt) > room))

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        if not candidates:
            return 0, 0
        return 1, sum(min(self.max_length, length + STRUCTURE) for length in (prompt, *candidates))
