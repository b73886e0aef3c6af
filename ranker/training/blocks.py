"""Blocks: groups that are too large for one pass, cut anew in every pass over the data."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

TURN: Final = 1e-3
"""How much less a comparison counts with each pass that had it."""

REFUSALS: Final = 8
"""Answers that do not fit before a block is closed."""

Edges = Mapping[int, Mapping[int, float]]
"""Of each answer, the answers it is compared with and the weight of that; each comparison stands at both."""


class Blocks:
    """Cuts a group that is too large for one pass, anew in every pass over the data.

    A block grows from an answer by the one that has the largest part of its comparisons with the block; those that
    earlier passes had count a thousandth, so that each gets its turn. An answer that shares no comparison with its
    block is not read.

    Args:
        edges: the group's comparisons.
        keep_lone: whether a block of one answer is of use.
    """

    def __init__(self, edges: Edges, *, keep_lone: bool = False) -> None:
        self.edges = edges
        self.keep_lone = keep_lone
        self.turns: Counter[tuple[int, int]] = Counter()

    def weight_of(self, chosen: Sequence[int]) -> float:
        """Of the comparisons within a block."""
        inside = set(chosen)
        return sum(w for a in inside for b, w in self.edges[a].items() if a <= b and b in inside)

    def cut(
        self, fits: Callable[[tuple[int, ...]], bool], size: Callable[[], int], rng: random.Random
    ) -> list[tuple[int, ...]]:
        """One pass: disjoint blocks.

        Args:
            fits: whether a block can be read in one pass; two answers that cannot are its error to raise.
            size: the most answers of the next block.
            rng: breaks ties.
        """
        rank = {answer: rng.random() for answer in self.edges}
        open_weight = {a: sum(self._gain(a, b) for b in others) for a, others in self.edges.items()}
        order = sorted(self.edges, key=lambda answer: (-open_weight[answer], rank[answer]))
        free = set(order)
        blocks: list[tuple[int, ...]] = []
        for start in order:
            if start not in free:
                continue
            block = self._grown(start, free, fits, size(), open_weight, rank)
            free -= set(block)
            blocks.append(block)
            inside = set(block)
            self.turns.update((a, b) for a in block for b in self.edges[a] if a <= b and b in inside)
        return [block for block in blocks if len(block) > 1 or self.keep_lone]

    def _grown(
        self,
        start: int,
        free: set[int],
        fits: Callable[[tuple[int, ...]], bool],
        size: int,
        open_weight: Mapping[int, float],
        rank: Mapping[int, float],
    ) -> tuple[int, ...]:
        block, tried = [start], {start}
        shares: dict[int, float] = {}
        heap: list[tuple[float, float, int]] = []

        def look_around(answer: int) -> None:
            for other in self.edges[answer]:
                if other in free and other not in tried:
                    shares[other] = shares.get(other, 0.0) + self._gain(answer, other) / open_weight[other]
                    heapq.heappush(heap, (-shares[other], rank[other], other))

        look_around(start)
        while heap and len(block) < size and len(tried) - len(block) < REFUSALS:
            share, _, other = heapq.heappop(heap)
            if other in tried or -share != shares[other]:
                continue
            tried.add(other)
            if fits((*block, other)):
                block.append(other)
                look_around(other)
        return tuple(block)

    def _gain(self, a: int, b: int) -> float:
        return self.edges[a][b] * TURN ** self.turns[min(a, b), max(a, b)]
