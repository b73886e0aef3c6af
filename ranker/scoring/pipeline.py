"""From groups to rows of ids: the one text path of training, the torch scorer and the ONNX scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.layouts import Layout, PackedGroup
from ranker.layouts.pairs import one_order
from ranker.layouts.prefix_sharing import share_prefix, shared_cost
from ranker.layouts.reward import RewardLayout
from ranker.records import Group, Prompt, Spans
from ranker.text.tokenizer import TextTokenizer
from ranker.text.tokens import Tokens

EXAMPLE: Final = Group("What is 2 + 2?", ("4", "5"))
"""What ``ranker inspect`` shows as a row."""


class TextPipeline:
    """Tokenises and packs groups for one layout.

    Args:
        layout: how the model reads a group.
        tokenizer: the model's tokenizer.
        prefix_sharing: whether the model reads several answers after one prompt (``ranker.layouts.prefix_sharing``).
        average_orders: whether every pair is read in both orders by layouts that read ordered pairs.

    Raises:
        ConfigError: one order of a layout that reads no ordered pairs.
    """

    def __init__(
        self, layout: Layout, tokenizer: TextTokenizer, *, prefix_sharing: bool = False, average_orders: bool = True
    ) -> None:
        if layout.order_free and not average_orders:
            raise ConfigError(
                f"average_orders=False is for models that read ordered pairs; layout '{layout.layout}' has no order"
            )
        self.layout = layout
        self.tokenizer = tokenizer
        self.encoder = layout.encoder(tokenizer)
        self.prefix_sharing = prefix_sharing
        self.average_orders = average_orders

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """Ids of every group."""
        return self.encoder.tokenize(groups)

    def within(self, prompt: Prompt, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """Which of an answer's tokens, as ``tokenize`` gives them, have a character in one of ``spans``: (tokens,)."""
        return self.encoder.within(prompt, answer, spans)

    def pack(self, tokens: Tokens) -> PackedGroup:
        """The rows of one group."""
        packed = self.layout.pack(tokens.prompt, tokens.candidates, tokens.starts)
        if self.prefix_sharing:
            packed = share_prefix(packed, self.layout.max_length)
        elif not self.average_orders:
            packed = one_order(packed)
        if not (tokens.special_text or tokens.refused or any(tokens.candidates_cut) or any(tokens.prompts_cut)):
            return packed
        return replace(
            packed,
            truncated=packed.truncated | np.array(tokens.candidates_cut, np.bool_),
            prompts_truncated=packed.prompts_truncated | np.array(tokens.prompts_cut, np.bool_),
            special_text=tokens.special_text,
            refused={**packed.refused, **tokens.refused},
        )

    def example(self) -> str:
        """How the model reads a question and its answer, special tokens included; or why its template refuses them."""
        packed = self.pack(self.tokenize([EXAMPLE])[0])
        return self.tokenizer.decode(packed.rows[0].ids) if packed.rows else next(iter(packed.refused.values()), "")

    def token_counts(self, group: Group) -> list[int]:
        """Tokens of each candidate's text, before truncation."""
        return self.encoder.token_counts(group)

    @property
    def reads_prompt_once(self) -> bool:
        """Whether a prompt is read once for several answers."""
        return self.prefix_sharing or self.layout.reads_prompt_once

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """(rows, tokens of the longest row) of a group with texts of these lengths, without packing it."""
        if self.prefix_sharing and isinstance(self.layout, RewardLayout):
            return shared_cost(self.layout.row_lengths(prompt, candidates), self.layout.max_length)
        return self.layout.cost(prompt, candidates)

    def padded_tokens(self, tokens: Tokens) -> int:
        """Rows times longest row of a group, without packing it."""
        return prod(self.cost(len(tokens.prompt), [len(ids) for ids in tokens.candidates]))
