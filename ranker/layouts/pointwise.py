"""One row per candidate, read on its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ranker.layouts.layout import (
    PackedGroup,
    Row,
    Side,
    TokenTypes,
    Truncation,
)
from ranker.layouts.reward import RewardLayout
from ranker.text.separate import SeparateTexts
from ranker.text.tokenizer import Ids, TextTokenizer
from ranker.text.tokens import TextEncoder
from ranker.text.truncation import longest_first, split_budget


class Pointwise(RewardLayout):
    """A reward model's row, one per candidate: ``prefix prompt between candidate suffix``.

    The parts around the texts are the ids of the tokenizer's own pair template (``[CLS]``, ``[SEP]``). N (S + C) tokens
    for a prompt of S tokens and N candidates of C.
    """

    layout: Literal["pointwise"] = "pointwise"
    prefix: tuple[int, ...] = Field((), description="before the prompt")
    between: tuple[int, ...] = Field((), description="between the prompt and the answer")
    suffix: tuple[int, ...] = Field((), description="after the answer; a decoder is read at its end")
    instruction: str = Field("", description="text before every prompt")
    token_types: TokenTypes = "pair"
    truncation: Truncation = "prompt_first"
    truncation_side: Side = Field("right", description="of longest_first: the end at which texts are cut")

    @model_validator(mode="before")
    @classmethod
    def _without_turns(cls, values: Any) -> Any:
        """Earlier versions stored ``turn``, the structure between the turns of a decoder's conversation."""
        if isinstance(values, dict) and "turn" in values:
            if values["turn"] is not None:
                raise ValueError(
                    "this decoder was written by an earlier version, which rendered conversations in a way of its own; "
                    "convert its original checkpoint, or train it again"
                )
            values = {name: value for name, value in values.items() if name != "turn"}
        return values

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``."""
        prefix, between, suffix = self._parts
        parts: list[Ids] = []
        kept = [self._kept(len(prompt), len(candidate)) for candidate in candidates]
        for candidate, (prompt_tokens, tokens) in zip(candidates, kept, strict=True):
            first, second = prompt[len(prompt) - prompt_tokens :], candidate[:tokens]
            if self.truncation == "longest_first" and self.truncation_side == "right":
                first = prompt[:prompt_tokens]
            elif self.truncation == "longest_first":
                second = candidate[len(candidate) - tokens :]
            parts += (prefix, first, between, second, suffix)
        together = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        rows: list[Row] = []
        place = 0
        for i, (prompt_tokens, tokens) in enumerate(kept):
            length = prompt_tokens + tokens + self._structure
            start = len(prefix) + prompt_tokens + len(between)
            blocks, positions = self._numbers(start, length)
            gate = start - len(between) - (0 if len(between) else 1)
            ids = together[place : place + length]
            rows.append(Row(ids, blocks, positions, (gate,) if self.output == "gated" else (), (i,)))
            place += length
        return PackedGroup(
            tuple(rows),
            np.array([tokens < len(c) for (_, tokens), c in zip(kept, candidates, strict=True)], np.bool_),
            np.array([tokens < len(prompt) for tokens, _ in kept], np.bool_),
        )

    def row_lengths(self, prompt: int, candidates: Sequence[int]) -> list[tuple[int, int]]:
        """See ``RewardLayout.row_lengths``."""
        lengths = []
        for candidate in candidates:
            kept, length = self._kept(prompt, candidate)
            start = len(self.prefix) + kept + len(self.between)
            lengths.append((start, start + length + len(self.suffix)))
        return lengths

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        if not candidates:
            return 0, 0
        return len(candidates), min(self.max_length, prompt + max(candidates) + self._structure)

    def encoder(self, tokenizer: TextTokenizer) -> TextEncoder:
        """See ``Layout.encoder``."""
        return SeparateTexts(
            tokenizer,
            self.character_limit,
            keep_prompt_start=self.truncation == "longest_first" and self.truncation_side == "right",
            instruction=self.instruction,
        )

    @cached_property
    def _parts(self) -> tuple[Ids, Ids, Ids]:
        prefix, between, suffix = (np.array(part, np.int32) for part in (self.prefix, self.between, self.suffix))
        return prefix, between, suffix

    def _numbers(self, start: int, length: int) -> tuple[Ids, Ids]:
        """Blocks and positions of a row whose answer begins at ``start``: parts of arrays that all rows share."""
        blocks, positions = self._shared_numbers
        return blocks[self.max_length - start :][:length], positions[:length]

    @cached_property
    def _shared_numbers(self) -> tuple[Ids, Ids]:
        blocks = np.zeros(2 * self.max_length, np.int32)
        blocks[self.max_length :] = int(self.token_types == "pair")
        positions = np.arange(self.position_offset, self.position_offset + self.max_length, dtype=np.int32)
        for shared in (blocks, positions):
            shared.flags.writeable = False
        return blocks, positions

    def _kept(self, prompt: int, candidate: int) -> tuple[int, int]:
        """Tokens kept of both texts."""
        room = self.max_length - self._structure
        if prompt + candidate <= room:
            return prompt, candidate
        if self.truncation == "longest_first":
            return longest_first(room, prompt, candidate)
        kept, (length,) = split_budget(room, prompt, [candidate], self.prompt_reserve)
        return kept, length

    @cached_property
    def _structure(self) -> int:
        """Tokens of a row that are not text."""
        return len(self.prefix) + len(self.between) + len(self.suffix)
