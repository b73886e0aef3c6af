"""LLM-Blender's PairRM: one sequence per ordered pair of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from ranker.layouts.blocks import Block, block_row
from ranker.layouts.layout import Arrays, Row, TokenTypes, padded
from ranker.layouts.pairs import PairLayout
from ranker.text.tokenizer import Ids


class OrderedPair(PairLayout):
    """LLM-Blender's PairRM (arXiv 2306.02561): ``[CLS] <source> prompt [SEP] [CLS] <candidate1> left [SEP] [CLS]
    <candidate2> right [SEP]`` with full attention and running positions.

    A model with this layout has a position bias, so both orders of a pair are read and averaged.
    """  # noqa: D205

    layout: Literal["ordered_pair"] = "ordered_pair"
    cls_id: int
    sep_id: int
    markers: tuple[int, int, int] = Field(description="ids of <source>, <candidate1> and <candidate2>")
    token_types: TokenTypes = "pair"

    @property
    def marker_ids(self) -> tuple[int, ...]:
        """See ``Layout.marker_ids``."""
        return self.markers

    @property
    def structure(self) -> int:
        """[CLS], marker and [SEP] of three blocks."""
        return 9

    @property
    def extra_input(self) -> str | None:
        """``readout`` (rows, 3): the positions of the three markers."""
        return "readout"

    def extra_arrays(self, units: Sequence[Sequence[Row]]) -> Arrays:
        """See ``extra_input``."""
        return {"readout": padded([row.readout for unit in units for row in unit])}

    def pair_row(self, prompt: Ids, left: Ids, right: Ids, candidates: tuple[int, int]) -> Row:
        """See ``PairLayout.pair_row``."""
        texts = (prompt, left, right)
        blocks: list[Block] = [([self.cls_id, marker], text) for marker, text in zip(self.markers, texts, strict=True)]
        row = block_row(
            blocks, sep_id=self.sep_id, position_offset=self.position_offset, candidates=candidates, marker_at=1
        )
        return row if self.token_types == "pair" else replace(row, blocks=np.zeros_like(row.blocks))
