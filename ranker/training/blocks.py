"""Blocks: groups that are too large for one pass, cut anew in every pass over the data."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

TURN: Final = 1e-3
"""How much less a comparison counts with each pass that had it, up to ``MOST_TURNS`` passes."""

MOST_TURNS: Final = 20

REFUSALS: Final = 8
"""Answers that do not fit before a block is closed."""

Edges = Mapping[int, Mapping[int, float]]
"""Of each answer, the answers it is compared with and the weight of that; each comparison stands at both."""


class Blocks:
    """Cuts a group that is too large for one pass, anew in every pass over the data.

    A block grows from an answer by the one that has the largest part of its comparisons with the block; those that
    earlier passes had count a thousandth, so that each gets its turn. Every answer that is compared at all is in a
    block with one that it is compared with; where all of those are in other blocks already, one of them is read again.

    Args:
        edges: the group's comparisons.
        keep_lone: whether a block of one answer is of use.
        fill: whether a block takes answers that it has no comparison with, because they share its prompt.
    """

    def __init__(self, edges: Edges, *, keep_lone: bool = False, fill: bool = False) -> None:
        self.edges = edges
        self.keep_lone = keep_lone
        self.fill = fill
        self.turns: Counter[tuple[int, int]] = Counter()

    def weight_of(self, blocks: Iterable[Sequence[int]]) -> float:
        """Of the comparisons that are within a block."""
        pairs = {(a, b) for block in blocks for a, b in self._inside(block)}
        return sum(self.edges[a][b] for a, b in pairs)

    def cut(
        self, fits: Callable[[tuple[int, ...]], bool], size: Callable[[], int], rng: random.Random
    ) -> list[tuple[int, ...]]:
        """The blocks of one pass.

        Args:
            fits: whether a block can be read in one pass. It raises the error where two answers, or one, cannot.
            size: the most answers of the next block.
            rng: breaks ties.
        """
        rank = {answer: rng.random() for answer in self.edges}
        open_weight = {a: sum(self._gain(a, b) for b in others) for a, others in self.edges.items()}
        order = sorted(self.edges, key=lambda answer: (-open_weight[answer], rank[answer]))
        free = set(order)
        blocks: list[tuple[int, ...]] = []
        lone: list[int] = []
        for start in order:
            if start in free:
                block = self._grown((start,), free, fits, size(), open_weight, rank, order if self.fill else ())
                free -= set(block)
                if len(block) > 1 or self.keep_lone:
                    blocks.append(block)
                elif any(other != start for other in self.edges[start]):
                    lone.append(start)
        blocks += self._again(lone, fits, size, open_weight, rank)
        for block in blocks:
            self.turns.update(self._inside(block))
        return blocks

    def _again(
        self,
        lone: Sequence[int],
        fits: Callable[[tuple[int, ...]], bool],
        size: Callable[[], int],
        open_weight: Mapping[int, float],
        rank: Mapping[int, float],
    ) -> list[tuple[int, ...]]:
        """Blocks of answers whose rivals are all in other blocks, each with the rival that most of them share."""
        free = set(lone)
        shared = Counter(other for answer in lone for other in self.edges[answer])
        blocks: list[tuple[int, ...]] = []
        for start in lone:
            if start not in free:
                continue
            rival = max((other for other in self.edges[start] if other != start), key=lambda o: (shared[o], rank[o]))
            block = self._grown((rival, start), free, fits, size(), open_weight, rank)
            for answer in block[1:]:
                shared.subtract(self.edges[answer].keys())
            free -= set(block)
            blocks.append(block)
        return blocks

    def _grown(
        self,
        seed: tuple[int, ...],
        free: set[int],
        fits: Callable[[tuple[int, ...]], bool],
        size: int,
        open_weight: Mapping[int, float],
        rank: Mapping[int, float],
        fillers: Sequence[int] = (),
    ) -> tuple[int, ...]:
        fits(seed)
        block, tried = [*seed], {*seed}
        shares: dict[int, float] = {}
        heap: list[tuple[float, float, int]] = []
        more = iter(fillers)

        def look_around(answer: int) -> None:
            for other in self.edges[answer]:
                if other in free and other not in tried:
                    shares[other] = shares.get(other, 0.0) + self._gain(answer, other) / open_weight[other]
                    heapq.heappush(heap, (-shares[other], rank[other], other))

        def next_answer() -> int | None:
            while heap:
                share, _, other = heapq.heappop(heap)
                if other not in tried and -share == shares[other]:
                    return other
            return next((other for other in more if other in free and other not in tried), None)

        for answer in seed:
            look_around(answer)
        while len(block) < size and len(tried) - len(block) < REFUSALS and (other := next_answer()) is not None:
            tried.add(other)
            if fits((*block, other)):
                block.append(other)
                look_around(other)
        return tuple(block)

    def _inside(self, block: Sequence[int]) -> list[tuple[int, int]]:
        inside = set(block)
        return [(a, b) for a in inside for b in self.edges[a] if a <= b and b in inside]

    def _gain(self, a: int, b: int) -> float:
        turns = self.turns[min(a, b), max(a, b)]
        return float(self.edges[a][b] * TURN ** min(turns, MOST_TURNS))
