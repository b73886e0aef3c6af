"""From groups to rows of ids: the one text path of training, the torch scorer and the ONNX scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.layouts import Layout, PackedGroup
from ranker.layouts.pairs import one_order
from ranker.layouts.pointwise import Pointwise
from ranker.layouts.prefix_sharing import share_prefix, shared_cost
from ranker.records import Group, Prompt, Spans
from ranker.text.chat import turns
from ranker.text.templates import clean, render_prompt
from ranker.text.tokenizer import Ids, TextTokenizer


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of one group's prompt and candidates, and which texts were cut at the character limit."""

    prompt: Ids
    candidates: tuple[Ids, ...]
    prompt_cut: bool
    candidates_cut: tuple[bool, ...]


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
        self.prefix_sharing = prefix_sharing
        self.average_orders = average_orders

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """Ids of every group; each distinct text is tokenised once."""
        limit = self.layout.character_limit
        prompts = [self._contents(group.prompt) for group in groups]
        candidates = [tuple(map(self._clean, group.candidates)) for group in groups]
        distinct = dict.fromkeys(content[-limit:] for contents in prompts for content in contents)
        distinct.update(dict.fromkeys(candidate[:limit] for group in candidates for candidate in group))
        ids = dict(zip(distinct, self.tokenizer.encode(list(distinct)), strict=True))
        return [
            Tokens(
                prompt=self.layout.join_turns([content[-limit:] for content in contents], ids),
                candidates=tuple(ids[candidate[:limit]] for candidate in group),
                prompt_cut=any(len(content) > limit for content in contents),
                candidates_cut=tuple(len(candidate) > limit for candidate in group),
            )
            for contents, group in zip(prompts, candidates, strict=True)
        ]

    def within(self, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """Which of an answer's tokens, as ``tokenize`` gives them, have a character in one of ``spans``: (tokens,)."""
        return self.tokenizer.within(self._clean(answer)[: self.layout.character_limit], spans)

    def pack(self, tokens: Tokens) -> PackedGroup:
        """The rows of one group."""
        packed = self.layout.pack(tokens.prompt, tokens.candidates)
        if self.prefix_sharing:
            packed = share_prefix(packed, self.layout.max_length)
        elif not self.average_orders:
            packed = one_order(packed)
        return replace(
            packed,
            truncated=packed.truncated | np.array(tokens.candidates_cut, np.bool_),
            prompts_truncated=packed.prompts_truncated | tokens.prompt_cut,
        )

    def token_counts(self, group: Group) -> list[int]:
        """Tokens of each candidate's text, before truncation."""
        return [len(ids) for ids in self.tokenize([group])[0].candidates]

    @property
    def reads_prompt_once(self) -> bool:
        """Whether a prompt is read once for several answers."""
        return self.prefix_sharing or self.layout.reads_prompt_once

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """(rows, tokens of the longest row) of a group with texts of these lengths, without packing it."""
        if self.prefix_sharing and isinstance(self.layout, Pointwise):
            return shared_cost(self.layout, prompt, candidates)
        return self.layout.cost(prompt, candidates)

    def padded_tokens(self, tokens: Tokens) -> int:
        """Rows times longest row of a group, without packing it."""
        return prod(self.cost(len(tokens.prompt), [len(ids) for ids in tokens.candidates]))

    def _contents(self, prompt: Prompt) -> list[str]:
        """The texts of a prompt: its turns under a chat template, else one rendering of it all."""
        texts = [text for _, text in turns(prompt)] if self.layout.keeps_turns else [render_prompt(prompt)]
        return list(map(self._clean, texts))

    def _clean(self, text: str) -> str:
        return clean(text).replace("\n", " ") if self.layout.one_line else clean(text)
