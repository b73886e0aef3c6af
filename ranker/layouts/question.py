"""What layouts share that ask which of two answers is better: fixed words around a prompt and two answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from ranker.layouts.layout import PackedGroup, Row
from ranker.layouts.pairs import PairLayout
from ranker.text.tokenizer import Ids


class Question(PairLayout):
    """One sequence per ordered pair; a lone answer is read against ``empty``."""

    prefix: tuple[int, ...] = Field((), description="before the prompt")
    between: tuple[int, ...] = Field((), description="between the prompt and the first answer")
    second: tuple[int, ...] = Field((), description="between the two answers")
    suffix: tuple[int, ...] = Field((), description="after the second answer")
    empty: tuple[int, ...] = Field((), description="the answer that a lone one is read against")

    reads_padding_free: ClassVar[bool] = False

    @property
    def structure(self) -> int:
        """See ``PairLayout.structure``."""
        return sum(len(part) for part in (self.prefix, self.between, self.second, self.suffix))

    def pair_row(self, prompt: Ids, left: Ids, right: Ids, candidates: tuple[int, int]) -> Row:
        """See ``PairLayout.pair_row``."""
        prefix, between, second, suffix = (
            np.array(part, np.int32) for part in (self.prefix, self.between, self.second, self.suffix)
        )
        pieces = [prefix, prompt, between, left, second, right, suffix]
        ids = np.concatenate(pieces)
        blocks = np.repeat([0, 0, 0, 1, 1, 2, 2], [len(piece) for piece in pieces]).astype(np.int32)
        return Row(ids, blocks, np.arange(len(ids), dtype=np.int32), (), candidates)

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``PairLayout.pack``; a lone candidate is read against ``empty``."""
        return self.pack_question(prompt, candidates, candidates)

    def pack_question(self, prompt: Ids, firsts: Sequence[Ids], seconds: Sequence[Ids]) -> PackedGroup:
        """``pack_pairs``, where a lone candidate is read against ``empty``."""
        if len(firsts) != 1:
            return self.pack_pairs(prompt, firsts, seconds)
        empty = np.array(self.empty, np.int32)
        packed = self.pack_pairs(prompt, [firsts[0], empty], [seconds[0], empty])
        return replace(packed, truncated=packed.truncated[:1], with_reference=True)

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        lone = len(candidates) == 1
        return super().cost(prompt, [*candidates, len(self.empty)] if lone else candidates)
