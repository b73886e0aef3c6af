"""Which groups share a forward pass, and the arrays that pass reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.text.layout import TextLayout
from ranker.text.packing import Packed, Row

PASS: Final = 32
"""A pass costs, besides its tokens, about what this part of its budget does (a 32nd; measured on a CPU)."""

Arrays = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that must share a batch, and the group they belong to."""

    group: int
    rows: tuple[Row, ...]

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.ids) for row in self.rows)


def units(packed: Sequence[Packed]) -> list[Unit]:
    """The smallest parts that can be batched: a group whose rows exchange states is one, else every row is one."""
    return [
        Unit(group, rows)
        for group, item in enumerate(packed)
        for rows in ([item.rows] if item.together and item.rows else [(row,) for row in item.rows])
    ]


def plan(lengths: Sequence[int], rows: Sequence[int], budget: int, padding: int | None = None) -> list[list[int]]:
    """Cut items into batches of at most ``budget`` padded tokens (rows x longest row), of them ``padding`` empty ones.

    Items are taken by length, so a batch holds similar ones. An item larger than the budget is a batch of its own.
    Returns index lists; the last batches hold the longest items.
    """
    most = budget if padding is None else padding
    batches: list[list[int]] = []
    current: list[int] = []
    filled = real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        added = rows[index] * lengths[index]
        padded = filled * lengths[index]
        if current and (padded + added > budget or padded - real > most):
            batches.append(current)
            current, filled, real = [], 0, 0
        current.append(index)
        filled += rows[index]
        real += added
    return [*batches, current] if current else batches


def batches(items: Sequence[Unit], budget: int, workers: int = 1, *, tight: bool = False) -> Iterator[list[Unit]]:
    """Cut units into batches under a padded-token budget, longest last, and if they can be into one for each worker.

    ``tight`` ends a batch where more padding would cost what a pass does.
    """
    lengths, rows = [unit.length for unit in items], [len(unit.rows) for unit in items]
    padding = budget // PASS if tight else None
    if workers > 1:
        budget = min(budget, sum(map(mul, lengths, rows)) // workers + 1)
    for indices in plan(lengths, rows, budget, padding):
        yield [items[i] for i in indices]


def collate(layout: TextLayout, batch: Sequence[Unit]) -> Arrays:
    """The arrays of one forward pass.

    ``input_ids``, ``block_ids`` (-1 padding) and ``position_ids`` are (rows, sequence). ``hub`` and ``published`` add
    ``readout`` (rows, 1 + candidates): the positions of the source marker and of each candidate marker, -1 absent; a
    gated model (rows, 1): where the gate reads the prompt; rows that share a prompt (rows, answers): where answers end.
    ``set`` with exchange adds ``members`` (rows, others): the row numbers of the group's other candidates, -1 absent.
    """
    rows = [row for unit in batch for row in unit.rows]
    length = max(len(row.ids) for row in rows)
    arrays: Arrays = {
        "input_ids": np.full((len(rows), length), layout.pad_id, np.int64),
        "block_ids": np.full((len(rows), length), -1, np.int64),
        "position_ids": np.full((len(rows), length), layout.position_offset, np.int64),
    }
    for i, row in enumerate(rows):
        arrays["input_ids"][i, : len(row.ids)] = row.ids
        arrays["block_ids"][i, : len(row.ids)] = row.blocks
        arrays["position_ids"][i, : len(row.ids)] = row.positions
    if layout.readout or (layout.layout == "single" and rows[0].readout):
        arrays["readout"] = _padded([row.readout for row in rows])
    elif layout.layout == "set" and layout.exchange:
        arrays["members"] = _padded(_others([len(unit.rows) for unit in batch]))
    return arrays


def _others(sizes: Sequence[int]) -> list[list[int]]:
    members, start = [], 0
    for size in sizes:
        group = range(start, start + size)
        members += [[other for other in group if other != row] for row in group]
        start += size
    return members


def _padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    width = max(1, *map(len, rows))
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int64)
