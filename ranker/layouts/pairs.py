"""What layouts share that read ordered pairs: one row for every ordered pair of candidates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from typing import ClassVar

import numpy as np

from ranker.layouts.layout import Cell, Layout, PackedGroup, Row
from ranker.text.tokenizer import Ids
from ranker.text.truncation import split_budget


class PairLayout(Layout):
    """A row holds a prompt and two candidates; its outputs are the first one's and the second one's logit."""

    order_free: ClassVar[bool] = False

    @property
    @abstractmethod
    def structure(self) -> int:
        """Tokens of a row that are not text."""

    @abstractmethod
    def pair_row(self, prompt: Ids, left: Ids, right: Ids, candidates: tuple[int, int]) -> Row:
        """The row of one ordered pair, from texts that are cut to the budget."""

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``; N (N - 1) rows."""
        return self.pack_pairs(prompt, candidates, candidates)

    def pack_pairs(self, prompt: Ids, firsts: Sequence[Ids], seconds: Sequence[Ids]) -> PackedGroup:
        """``pack`` of candidates whose ids as the first of a pair and as the second may differ."""
        candidates = firsts
        total = self.max_length - self.structure
        truncated = np.zeros(len(candidates), np.bool_)
        prompts_truncated = np.zeros(len(candidates), np.bool_)
        rows: list[Row] = []
        for i, left in enumerate(candidates):
            for j, right in enumerate(seconds):
                if i == j:
                    continue
                lengths = [len(left), len(right)]
                kept, room = split_budget(total, len(prompt), lengths, self.prompt_reserve)
                rows.append(self.pair_row(prompt[len(prompt) - kept :], left[: room[0]], right[: room[1]], (i, j)))
                truncated[[i, j]] |= np.array([room[0] < len(left), room[1] < len(right)])
                prompts_truncated[[i, j]] |= kept < len(prompt)
        return PackedGroup(tuple(rows), truncated, prompts_truncated)

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        if not candidates:
            return 0, 0
        longest = sum(sorted(candidates)[-2:])
        return len(candidates) * (len(candidates) - 1), min(self.max_length, prompt + longest + self.structure)

    def cells(self, rows: Sequence[Row], start: int, first: int, second: int) -> tuple[Cell, Cell]:
        """Where the outputs of two candidates are, in the row that holds the pair in this order.

        Args:
            rows: all rows of the candidates' group.
            start: the number of its first row in the pass.
            first: a candidate.
            second: another.
        """
        others = isqrt(len(rows))  # N (N - 1) rows, those of one first candidate together
        row = start + first * others + second - (second > first)
        return (row, 0), (row, 1)


def one_order(packed: PackedGroup) -> PackedGroup:
    """The same group with every pair read in one order, each candidate first about half of the time."""
    return replace(packed, rows=tuple(row for row in packed.rows if _chosen(*row.candidates)))


def _chosen(i: int, j: int) -> bool:
    """Whether i is read before j: as on a chessboard, where neither of two neighbours is always first."""
    return (i < j) == ((i + j) % 2 == 1)
