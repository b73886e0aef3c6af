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


LEAST_OTHERS: Final = 16
"""A pass keeps room for so many [CLS] states of other rows within a run of keys."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """To which lengths rows are padded, and which rows may share a pass, so that no score depends on its company.

    A product adds up the keys of a row in runs, the parts of a long sequence one after the other. Where rows see the
    [CLS] states of others, these come after the padding. In a longer pass they may fall into another run than the
    tokens: the sum has the same numbers in another order, and int8 rounds its last bits to something visible.

    Args:
        step: lengths are rounded up to a multiple of this.
        run: keys of a run, or a part of that; units of several rows share a pass only where the states of others begin
            in the same run. None: they share one with any other.
        alike: whether only units of the same length share a pass, so that nothing is padded.
    """

    step: int = 1
    run: int | None = None
    alike: bool = False

    def length(self, longest: int, others: int = 0) -> int:
        """The padded length of rows of up to ``longest`` tokens that see ``others`` other rows."""
        length = -(-longest // self.step) * self.step
        if self.run is None or not others or self.run - length % self.run >= self._room(others):
            return length
        return -(-length // self.run) * self.run

    def kind(self, unit: Unit) -> tuple[int, int]:
        """Units of one kind may share a pass."""
        others = len(unit.rows) - 1
        if self.alike:
            return others, unit.length
        if self.run is None or not others:
            return 0, 0
        return self._room(others), self.length(unit.length, others) // self.run

    def _room(self, others: int) -> int:
        """Places that the states of ``others`` rows get: a power of two."""
        return max(LEAST_OTHERS, 1 << (others - 1).bit_length())


AS_THEY_ARE: Final = Rounding()
"""Rows are padded to the longest, and any may share a pass."""


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
    items: Sequence[Unit], budget: int, workers: int = 1, *, tight: bool = False, rounding: Rounding = AS_THEY_ARE
) -> Iterator[list[Unit]]:
    """Cut units into batches under a padded-token budget, longest last, and if they can be into one for each worker.

    ``tight`` ends a batch where more padding would cost what a pass does. Lengths are rounded up as in ``collate``.
    """
    lengths, rows = [rounding.length(u.length, len(u.rows) - 1) for u in items], [len(u.rows) for u in items]
    padding = budget // PASS_SHARE if tight else None
    if workers > 1:
        budget = min(budget, sum(map(mul, lengths, rows)) // workers + 1)
    kinds: dict[tuple[int, int], list[int]] = {}
    for index, unit in enumerate(items):
        kinds.setdefault(rounding.kind(unit), []).append(index)
    for kind in sorted(kinds):
        places = kinds[kind]
        for indices in plan([lengths[i] for i in places], [rows[i] for i in places], budget, padding):
            yield [items[places[i]] for i in indices]


def collate(layout: Layout, batch: Sequence[Unit], rounding: Rounding = AS_THEY_ARE) -> Arrays:
    """The arrays of one forward pass, whose sequence is the longest row's rounded up.

    ``input_ids``, ``block_ids`` (-1 padding) and ``position_ids`` are (rows, sequence); the layout adds its
    ``extra_input``, and ``readout`` (rows, candidates) where rows share a prompt: the position where each ends.
    """
    rows = [row for unit in batch for row in unit.rows]
    lengths = np.array([len(row.ids) for row in rows])
    others = max(len(unit.rows) for unit in batch) - 1
    present = np.arange(rounding.length(int(lengths.max()), others)) < lengths[:, None]
    arrays: Arrays = {}
    for name, parts, empty in (
        ("input_ids", [row.ids for row in rows], layout.pad_id),
        ("block_ids", [row.blocks for row in rows], -1),
        ("position_ids", [row.positions for row in rows], layout.position_offset),
    ):
        arrays[name] = np.full(present.shape, empty, np.int64)
        arrays[name][present] = np.concatenate(parts)
    return arrays | layout.extra_arrays([unit.rows for unit in batch])
