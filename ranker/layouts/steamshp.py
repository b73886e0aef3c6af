"""SteamSHP's question: which of two answers is better, A or B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ranker.layouts.layout import PackedGroup, Row
from ranker.layouts.pairs import PairLayout
from ranker.text.tokenizer import Ids


class SteamSHP(PairLayout):
    """SteamSHP's question, one sequence per ordered pair.

    ``POST: prompt RESPONSE A: left RESPONSE B: right Which response is better? RESPONSE``. A lone answer is read
    against the empty answer ``.``. Source: the model card of stanfordnlp/SteamSHP-flan-t5-xl.
    """

    layout: Literal["steamshp"] = "steamshp"
    prefix: tuple[int, ...] = Field((), description="before the prompt")
    between: tuple[int, ...] = Field((), description="between the prompt and the first answer")
    second: tuple[int, ...] = Field((), description="between the two answers")
    suffix: tuple[int, ...] = Field((), description="after the second answer")
    empty: tuple[int, ...] = Field((), description="the answer that a lone one is read against")

    one_line: ClassVar[bool] = True
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
        if len(candidates) != 1:
            return super().pack(prompt, candidates)
        packed = super().pack(prompt, [candidates[0], np.array(self.empty, np.int32)])
        return replace(packed, truncated=packed.truncated[:1], with_reference=True)

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        lone = len(candidates) == 1
        return super().cost(prompt, [*candidates, len(self.empty)] if lone else candidates)
