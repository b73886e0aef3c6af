"""Which groups share a forward pass, and the arrays that pass reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

import numpy as np

from ranker.layouts import Layout, PackedGroup, Row
from ranker.layouts.layout import Arrays

PASS_SHARE: Final = 32
"""A pass costs, besides its tokens, about what this part of its budget does (a 32nd; measured on a CPU)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that must share a batch, and the group they belong to."""

    group: int
    rows: tuple[Row, ...]

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.rows[0].ids) if len(self.rows) == 1 else max(len(row.ids) for row in self.rows)


def padded_tokens(batch: Sequence[Unit]) -> int:
    """Rows times the longest row of a pass."""
    return sum(len(unit.rows) for unit in batch) * max(unit.length for unit in batch)


def units(packed: Sequence[PackedGroup]) -> list[Unit]:
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


def batches(
    items: Sequence[Unit], budget: int, workers: int = 1, *, tight: bool = False, step: int = 1
) -> Iterator[list[Unit]]:
    """Cut units into batches under a padded-token budget, longest last, and if they can be into one for each worker.

    ``tight`` ends a batch where more padding would cost what a pass does. Lengths are rounded up to multiples of
    ``step``, as in ``collate``.
    """
    lengths, rows = [-(-unit.length // step) * step for unit in items], [len(unit.rows) for unit in items]
    padding = budget // PASS_SHARE if tight else None
    if workers > 1:
        budget = min(budget, sum(map(mul, lengths, rows)) // workers + 1)
    for indices in plan(lengths, rows, budget, padding):
        yield [items[i] for i in indices]


def collate(layout: Layout, batch: Sequence[Unit], step: int = 1) -> Arrays:
    """The arrays of one forward pass, whose sequence is the longest row's rounded up to a multiple of ``step``.

    ``input_ids``, ``block_ids`` (-1 padding) and ``position_ids`` are (rows, sequence); the layout adds its
    ``extra_input``, and ``readout`` (rows, candidates) where rows share a prompt: the position where each ends.
    """
    rows = [row for unit in batch for row in unit.rows]
    lengths = np.array([len(row.ids) for row in rows])
    present = np.arange(-(-lengths.max() // step) * step) < lengths[:, None]
    arrays: Arrays = {}
    for name, parts, empty in (
        ("input_ids", [row.ids for row in rows], layout.pad_id),
        ("block_ids", [row.blocks for row in rows], -1),
        ("position_ids", [row.positions for row in rows], layout.position_offset),
    ):
        arrays[name] = np.full(present.shape, empty, np.int64)
        arrays[name][present] = np.concatenate(parts)
    return arrays | layout.extra_arrays([unit.rows for unit in batch])
