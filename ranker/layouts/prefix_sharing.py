"""Several answers after one prompt that is read once: how decoders read a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ranker.layouts.layout import PackedGroup, Row
from ranker.text.tokenizer import Ids

BRANCHES: Final = 2
"""Answers share a row up to this many times their prompt's tokens: more would spend on attention what reading saves."""


def share_prefix(packed: PackedGroup, max_length: int) -> PackedGroup:
    """The same group with several answers to a row, after a prompt that is read once.

    For decoders, under ``branch_mask``: each answer is a block of its own whose positions continue the prompt's. A
    row takes answers while they are at most ``BRANCHES`` times as long as their prompt and the row at most twice
    ``max_length``; ``readout`` is where each ends.
    """
    rows: list[list[Row]] = []
    filled = 0
    for row in packed.rows:
        prompt = _prompt(row)
        length = len(row.ids) - len(prompt)
        room = min(BRANCHES * len(prompt), 2 * max_length - len(prompt))
        # An answer of no tokens is read at the prompt's end, which is not the end of the answer before it.
        if rows and 0 < length <= room - filled and np.array_equal(prompt, _prompt(rows[-1][-1])):
            rows[-1].append(row)
            filled += length
        else:
            rows.append([row])
            filled = length
    return replace(packed, rows=tuple(map(_joined, rows)))


def split_row(row: Row) -> list[Row]:
    """A row that several answers share as one row for each of them."""
    rows = []
    for number, candidate in enumerate(row.candidates, 1):
        kept = (row.blocks == 0) | (row.blocks == number)
        readout = (int(kept.sum()) - 1,)
        rows.append(Row(row.ids[kept], np.minimum(row.blocks[kept], 1), row.positions[kept], readout, (candidate,)))
    return rows


def _prompt(row: Row) -> Ids:
    prompt: Ids = row.ids[row.blocks == 0]
    return prompt


def _joined(rows: Sequence[Row]) -> Row:
    start = len(_prompt(rows[0]))
    ends = start + np.cumsum([len(row.ids) - start for row in rows])
    numbers = [np.full(len(row.ids) - start, number, np.int32) for number, row in enumerate(rows, 1)]
    first = rows[0]
    return Row(
        np.concatenate([first.ids[:start], *(row.ids[start:] for row in rows)]),
        np.concatenate([first.blocks[:start], *numbers]),
        np.concatenate([first.positions[:start], *(row.positions[start:] for row in rows)]),
        tuple((ends - 1).tolist()),
        tuple(candidate for row in rows for candidate in row.candidates),
    )


def shared_cost(rows: Sequence[tuple[int, int]], max_length: int) -> tuple[int, int]:
    """(rows, tokens of the longest row) after ``share_prefix``.

    Args:
        rows: (tokens of the prompt, tokens of the row) of every candidate on its own.
        max_length: as in ``share_prefix``.
    """
    lengths: list[int] = []
    before = filled = 0
    for start, length in rows:
        tail = length - start
        room = min(BRANCHES * start, 2 * max_length - start)
        if lengths and start == before and 0 < tail <= room - filled:
            lengths[-1] += tail
            filled += tail
        else:
            lengths.append(length)
            filled = tail
        before = start
    return len(lengths), max(lengths, default=0)
