"""From ids to model rows: truncation budgets and structure, one function per layout.

Truncation is per item: no row depends on its batch neighbours. The prompt loses its oldest tokens first and keeps at
least ``prompt_reserve``; only then is an answer cut, at its end, and flagged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.text.layout import CandidateLayout, TextLayout
from ranker.text.tokenizer import Ids

BRANCHES: Final = 2
"""Answers share a row up to this many times their prompt's tokens: more would spend on attention what reading saves."""

Block = tuple[list[int], Ids]
"""Structure ids before a text, and the text; every block ends with [SEP]."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of the model's input; all arrays but ``readout`` are (sequence,).

    ``blocks`` numbers the block of each token (0 the prompt, 1.. the answers). ``readout`` holds the positions that the
    head reads, and ``candidates`` whose scores come out, in the same order.
    """

    ids: Ids
    blocks: Ids
    positions: Ids
    readout: tuple[int, ...]
    candidates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of one group.

    ``together`` says that they need one batch (they exchange states), ``empty`` that one candidate more than the group
    has was read, an empty answer as its last.
    """

    rows: tuple[Row, ...]
    truncated: NDArray[np.bool_]
    prompt_truncated: bool
    together: bool
    empty: bool = False

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max((len(row.ids) for row in self.rows), default=0)


def pack(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    """Pack one group for ``layout``; ``answers`` in the order in which the scores are wanted."""
    return PACKERS[layout.layout](layout, prompt, answers)


def one_order(packed: Packed) -> Packed:
    """The same group with every pair read in one order, each candidate first about half of the time."""
    return replace(packed, rows=tuple(row for row in packed.rows if _chosen(*row.candidates)))


def _chosen(i: int, j: int) -> bool:
    """Whether i is read before j: as on a chessboard, where neither of two neighbours is always first."""
    return (i < j) == ((i + j) % 2 == 1)


def share_prefix(packed: Packed, max_length: int) -> Packed:
    """The same group with several answers to a row, after a prompt that is read once.

    For decoders, under ``branch_mask``: each answer is a block of its own whose positions go on from the prompt's. A
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
    return replace(packed, rows=tuple(map(_branches, rows)))


def _prompt(row: Row) -> Ids:
    prompt: Ids = row.ids[row.blocks == 0]
    return prompt


def _branches(rows: Sequence[Row]) -> Row:
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


def apart(row: Row) -> list[Row]:
    """A row that several answers share as one row for each of them."""
    rows = []
    for number, candidate in enumerate(row.candidates, 1):
        own = (row.blocks == 0) | (row.blocks == number)
        readout = (int(own.sum()) - 1,)
        rows.append(Row(row.ids[own], np.minimum(row.blocks[own], 1), row.positions[own], readout, (candidate,)))
    return rows


def split_budget(total: int, prompt: int, answers: Sequence[int], reserve: int) -> tuple[int, list[int]]:
    """Tokens kept of a prompt and of each answer that share ``total`` tokens.

    Answers come first: the prompt yields down to ``reserve`` before any answer is cut. Answers that must be cut share
    what is left equally, and what a short one leaves goes to the longer ones.
    """
    kept = list(answers)
    room = total - min(prompt, reserve)
    if sum(kept) > room:
        kept, open_answers = [0] * len(answers), sorted(range(len(answers)), key=lambda i: answers[i])
        while open_answers:
            share = room // len(open_answers)
            i = open_answers.pop(0)
            kept[i] = min(answers[i], share)
            room -= kept[i]
    return min(prompt, total - sum(kept)), kept


def _hub(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    room = layout.max_length - 3
    source, candidate = layout.markers
    blocks: list[Block] = [([layout.cls_id, source], prompt[max(0, len(prompt) - room) :])]
    blocks += [([layout.cls_id, candidate], answer[:room]) for answer in answers]
    row = _row(layout, blocks, restart=True, marker_at=1, candidates=range(len(answers)))
    truncated = np.array([len(a) > room for a in answers], np.bool_)
    return Packed((row,) if answers else (), truncated, len(prompt) > room, together=False)


def _set(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    rows, truncated, prompt_truncated = [], [], False
    for i, answer in enumerate(answers):
        kept, (room,) = split_budget(layout.max_length - 3, len(prompt), [len(answer)], layout.prompt_reserve)
        blocks: list[Block] = [([layout.cls_id], prompt[len(prompt) - kept :]), ([], answer[:room])]
        rows.append(_row(layout, blocks, restart=False, marker_at=0, candidates=(i,)))
        truncated.append(room < len(answer))
        prompt_truncated |= kept < len(prompt)
    return Packed(tuple(rows), np.array(truncated, np.bool_), prompt_truncated, together=layout.exchange)


def _single(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    between, suffix = (np.array(part, np.int32) for part in (layout.between, layout.suffix))
    prefix = np.array(layout.prefix, np.int32)
    room = layout.max_length - len(prefix) - len(between) - len(suffix)
    rows, truncated, prompt_truncated = [], [], False
    for i, answer in enumerate(answers):
        kept, (length,) = split_budget(room, len(prompt), [len(answer)], layout.prompt_reserve)
        ids = np.concatenate([prefix, prompt[len(prompt) - kept :], between, answer[:length], suffix])
        blocks = np.zeros(len(ids), np.int32)
        blocks[len(prefix) + kept + len(between) :] = 1
        positions = np.arange(layout.position_offset, layout.position_offset + len(ids), dtype=np.int32)
        gate = len(prefix) + kept - (0 if len(between) else 1)
        rows.append(Row(ids, blocks, positions, (gate,) if layout.readout else (), (i,)))
        truncated.append(length < len(answer))
        prompt_truncated |= kept < len(prompt)
    return Packed(tuple(rows), np.array(truncated, np.bool_), prompt_truncated, together=False)


def _published(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    source, first, second = layout.markers

    def row(kept: Ids, left: Ids, right: Ids, candidates: tuple[int, int]) -> Row:
        blocks: list[Block] = [
            ([layout.cls_id, source], kept),
            ([layout.cls_id, first], left),
            ([layout.cls_id, second], right),
        ]
        return _row(layout, blocks, restart=False, marker_at=1, candidates=candidates)

    return _ordered_pairs(layout, prompt, answers, row)


def _steamshp(layout: TextLayout, prompt: Ids, answers: Sequence[Ids]) -> Packed:
    parts = [np.array(part, np.int32) for part in (layout.prefix, layout.between, layout.second, layout.suffix)]

    def row(kept: Ids, left: Ids, right: Ids, candidates: tuple[int, int]) -> Row:
        texts = (kept, left, right)
        pieces = [piece for pair in zip(parts, texts, strict=False) for piece in pair] + parts[3:]
        ids = np.concatenate(pieces)
        blocks = np.repeat([0, 0, 0, 1, 1, 2, 2], [len(piece) for piece in pieces]).astype(np.int32)
        return Row(ids, blocks, np.arange(len(ids), dtype=np.int32), (), candidates)

    if len(answers) != 1:
        return _ordered_pairs(layout, prompt, answers, row)
    packed = _ordered_pairs(layout, prompt, [answers[0], np.array(layout.empty, np.int32)], row)
    return Packed(packed.rows, packed.truncated[:1], packed.prompt_truncated, together=False, empty=True)


def _ordered_pairs(
    layout: TextLayout,
    prompt: Ids,
    answers: Sequence[Ids],
    make: Callable[[Ids, Ids, Ids, tuple[int, int]], Row],
) -> Packed:
    """One row per ordered pair, made by ``make(prompt, left, right, (i, j))`` from texts cut to the budget."""
    total = layout.max_length - pair_structure(layout)
    truncated, prompt_truncated = np.zeros(len(answers), np.bool_), False
    rows = []
    for i, left in enumerate(answers):
        for j, right in enumerate(answers):
            if i == j:
                continue
            kept, room = split_budget(total, len(prompt), [len(left), len(right)], layout.prompt_reserve)
            rows.append(make(prompt[len(prompt) - kept :], left[: room[0]], right[: room[1]], (i, j)))
            truncated[[i, j]] |= np.array([room[0] < len(left), room[1] < len(right)])
            prompt_truncated |= kept < len(prompt)
    return Packed(tuple(rows), truncated, prompt_truncated, together=False)


def pair_structure(layout: TextLayout) -> int:
    """Structure tokens of a row that holds an ordered pair."""
    if layout.layout == "published":
        return 9  # [CLS], marker and [SEP] of three segments
    return sum(len(part) for part in (layout.prefix, layout.between, layout.second, layout.suffix))


PACKERS: Final[dict[CandidateLayout, Callable[[TextLayout, Ids, Sequence[Ids]], Packed]]] = {
    "hub": _hub,
    "set": _set,
    "published": _published,
    "single": _single,
    "steamshp": _steamshp,
}


def _row(
    layout: TextLayout, blocks: Sequence[Block], *, restart: bool, marker_at: int, candidates: Sequence[int]
) -> Row:
    ids: list[Ids] = []
    numbers: list[Ids] = []
    positions: list[Ids] = []
    readout: list[int] = []
    start = 0
    for number, (structure, text) in enumerate(blocks):
        length = len(structure) + len(text) + 1
        if structure:
            readout.append(start + marker_at)
        ids += [np.array(structure, np.int32), text, np.array([layout.sep_id], np.int32)]
        numbers.append(np.full(length, number, np.int32))
        first = layout.position_offset + (0 if restart else start)
        positions.append(np.arange(first, first + length, dtype=np.int32))
        start += length
    return Row(
        np.concatenate(ids), np.concatenate(numbers), np.concatenate(positions), tuple(readout), tuple(candidates)
    )


def cost(layout: TextLayout, prompt: int, answers: Sequence[int]) -> tuple[int, int]:
    """(rows, tokens of the longest row) of a group with texts of these lengths, without packing it."""
    limit = layout.max_length
    if not answers:
        return 0, 0
    if layout.layout == "hub":
        return 1, sum(min(limit, length + 3) for length in (prompt, *answers))
    if layout.layout == "set":
        return len(answers), min(limit, prompt + max(answers) + 3)
    if layout.layout == "single":
        structure = len(layout.prefix) + len(layout.between) + len(layout.suffix)
        return len(answers), min(limit, prompt + max(answers) + structure)
    longest = sum(sorted(answers)[-2:]) + (len(layout.empty) if len(answers) == 1 else 0)
    count = max(2, len(answers)) if layout.layout == "steamshp" else len(answers)
    return count * (count - 1), min(limit, prompt + longest + pair_structure(layout))
