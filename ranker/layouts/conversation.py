"""One row per candidate: its whole conversation, as the model's own chat template renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ranker.layouts.layout import PackedGroup, Row
from ranker.layouts.reward import RewardLayout
from ranker.text.conversations import ChatText, Conversations
from ranker.text.tokenizer import Ids, TextTokenizer


class Conversation(RewardLayout):
    """A decoder's row, one per candidate: the ids that ``apply_chat_template`` gives for the whole conversation.

    N (S + C) tokens for a prompt of S tokens and N candidates of C.
    """

    layout: Literal["conversation"] = "conversation"
    chat: ChatText
    gate_pattern: tuple[int, ...] = Field(
        (), description="the ids at whose last beginning a gate reads the prompt; none: where the answer begins"
    )

    renders_conversations: ClassVar[bool] = True

    def encoder(self, tokenizer: TextTokenizer) -> Conversations:
        """See ``Layout.encoder``."""
        return Conversations(
            tokenizer,
            self.chat,
            max_length=self.max_length,
            prompt_reserve=self.prompt_reserve,
            characters=self.character_limit,
        )

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``; a candidate without ids has no row. Rows fit already: see ``Conversations``."""
        rows: list[Row] = []
        refused: dict[int, str] = {}
        for i, (ids, start) in enumerate(zip(candidates, starts, strict=True)):
            if not len(ids):
                continue
            readout: tuple[int, ...] = ()
            if self.output == "gated":
                gate = last_place(ids, self.gate_pattern) if self.gate_pattern else max(0, start - 1)
                if gate is None:
                    refused[i] = "the gate finds no beginning of the answer's turn in this conversation"
                    continue
                readout = (gate,)
            blocks = np.zeros(len(ids), np.int32)
            blocks[start:] = 1
            positions = np.arange(self.position_offset, self.position_offset + len(ids), dtype=np.int32)
            rows.append(Row(ids, blocks, positions, readout, (i,)))
        whole = np.zeros(len(candidates), np.bool_)
        return replace(PackedGroup(tuple(rows), whole, whole.copy()), refused=refused)

    def row_lengths(self, prompt: int, candidates: Sequence[int]) -> list[tuple[int, int]]:
        """See ``RewardLayout.row_lengths``; the lengths are those of whole rows."""
        return [(min(prompt, length), length) for length in candidates]

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``; the lengths are those of whole rows."""
        return len(candidates), max(candidates, default=0)


def last_place(ids: Ids, pattern: Sequence[int]) -> int | None:
    """Where a pattern begins in a row for the last time; None where it does not."""
    width = len(pattern)
    if not width or len(ids) < width:
        return None
    hits = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(ids, width) == np.array(pattern)).all(axis=1))
    return int(hits[-1]) if len(hits) else None
