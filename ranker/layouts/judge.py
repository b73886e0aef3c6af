"""The question of language models that judge a pair: which of two answers, A or B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ranker.layouts.layout import PackedGroup
from ranker.layouts.question import Question
from ranker.records import Prompt
from ranker.text.chat import compiled
from ranker.text.conversations import turns_of
from ranker.text.separate import PairTexts, SeparateTexts
from ranker.text.tokenizer import Ids, TextTokenizer


class Judge(Question):
    """A question to a decoder, one sequence per ordered pair, read at its last token.

    The conversation before the answers is written by a template of its own. Every text begins with a space, which
    belongs to its first word.
    """

    layout: Literal["judge"] = "judge"
    turns: str = Field(description="Jinja source that writes the conversation before the answers")
    strips_end: bool = Field(False, description="whether the chat template strips white space after the second answer")

    def encoder(self, tokenizer: TextTokenizer) -> PairTexts:
        """See ``Layout.encoder``."""
        first, second = (
            SeparateTexts(tokenizer, self.character_limit, write_prompt=self._context, lead=" ", strips_end=strips)
            for strips in (False, self.strips_end)
        )
        return PairTexts(first, second)

    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """See ``Layout.pack``; candidates hold their ids as the first of a pair, from ``starts`` on as the second."""
        firsts = [ids[:start] for ids, start in zip(candidates, starts, strict=True)]
        seconds = [ids[start:] for ids, start in zip(candidates, starts, strict=True)]
        return self.pack_question(prompt, firsts, seconds)

    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """See ``Layout.cost``."""
        return super().cost(prompt, [length - length // 2 for length in candidates])

    def _context(self, prompt: Prompt) -> str:
        return f" {compiled(self.turns).render(messages=list(turns_of(prompt)))}"
