"""One row per candidate, the rows of a group seeing each other's [CLS]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from ranker.layouts.blocks import Block, block_row
from ranker.layouts.layout import Arrays, Layout, PackedGroup, Row, padded
from ranker.text.tokenizer import Ids
from ranker.text.truncation import split_budget

OTHERS_STEP: Final = 4
"""The states of others are padded to a multiple of this.

onnxruntime adds up the keys of a lone query two by two, and an odd one at the end otherwise, so that a score would
depend in its last digits on the size of the other groups of its pass.
"""

STRUCTURE: Final = 3
"""[CLS] and two [SEP]."""


class SetEncoder(Layout):
    """One row per candidate, ``[CLS] prompt [SEP] candidate [SEP]`` (Set-Encoder, arXiv 2404.06912).

    In every layer a row also sees the [CLS] states of the other rows of its group. N (S + C) tokens for a prompt of S
    tokens and N candidates of C.
    """

    layout: Literal["set_encoder"] = "set_encoder"
    cls_id: int
    sep_id: int

    @property
    def extra_input(self) -> str | None:
        """``members`` (rows, others): the row numbers of the group's other candidates, -1 absent."""
        return "members"

    def extra_arrays(self, units: Sequence[Sequence[Row]]) -> Arrays:
        """See ``extra_input``."""
        members: list[list[int]] = []
        for unit in units:
            group = range(len(members), len(members) + len(unit))
            members += [[other for other in group if other != row] for row in group]
        return {"members": padded(members, OTHERS_STEP)}

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``."""
        rows: list[Row] = []
        truncated: list[bool] = []
        prompts_truncated: list[bool] = []
        for i, candidate in enumerate(candidates):
            room = self.max_length - STRUCTURE
            kept, (length,) = split_budget(room, len(prompt), [len(candidate)], self.prompt_reserve)
            blocks: list[Block] = [([self.cls_id], prompt[len(prompt) - kept :]), ([], candidate[:length])]
            offset = self.position_offset
            rows.append(block_row(blocks, sep_id=self.sep_id, position_offset=offset, candidates=(i,)))
            truncated.append(length < len(candidate))
            prompts_truncated.append(kept < len(prompt))
        return PackedGroup(
            tuple(rows), np.array(truncated, np.bool_), np.array(prompts_truncated, np.bool_), together=True
        )

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        if not candidates:
            return 0, 0
        return len(candidates), min(self.max_length, prompt + max(candidates) + STRUCTURE)
