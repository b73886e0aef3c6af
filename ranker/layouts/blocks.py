"""Rows of blocks: structure ids, a text and [SEP], as the paired-input encoders read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranker.layouts.layout import Row
from ranker.text.tokenizer import Ids

Block = tuple[list[int], Ids]
"""Structure ids before a text, and the text; every block ends with [SEP]."""


def block_row(
    blocks: Sequence[Block],
    *,
    sep_id: int,
    position_offset: int,
    candidates: Sequence[int],
    restart: bool = False,
    marker_at: int = 0,
) -> Row:
    """One row of blocks.

    Args:
        blocks: the prompt's, then the candidates'. A block without structure ids is not read by the head.
        sep_id: closes every block.
        position_offset: the first position.
        candidates: whose scores come out of the row.
        restart: whether positions begin again in every block.
        marker_at: where in its structure ids a block is read.
    """
    ids: list[Ids] = []
    numbers: list[Ids] = []
    positions: list[Ids] = []
    readout: list[int] = []
    start = 0
    for number, (structure, text) in enumerate(blocks):
        length = len(structure) + len(text) + 1
        if structure:
            readout.append(start + marker_at)
        ids += [np.array(structure, np.int32), text, np.array([sep_id], np.int32)]
        numbers.append(np.full(length, number, np.int32))
        first = position_offset + (0 if restart else start)
        positions.append(np.arange(first, first + length, dtype=np.int32))
        start += length
    return Row(
        ids=np.concatenate(ids),
        blocks=np.concatenate(numbers),
        positions=np.concatenate(positions),
        readout=tuple(readout),
        candidates=tuple(candidates),
    )
