"""Prompts and answers as texts of their own: how encoders read them, with structure between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ranker.records import Group, Prompt, Spans
from ranker.text.templates import clean, render_prompt
from ranker.text.tokenizer import TextTokenizer
from ranker.text.tokens import Tokens


class SeparateTexts:
    """Encodes every distinct text once.

    Args:
        tokenizer: the model's.
        characters: of one text that are read: the last ones of a prompt, the first ones of an answer.
        one_line: whether line breaks within texts become spaces.
        keep_prompt_start: whether the first characters of a prompt are read and not the last ones.
        instruction: what is put before every prompt.
        write_prompt: how a prompt becomes a text.
        lead: what is put before every answer.
        strips_end: whether white space at the end of an answer is left out.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        characters: int,
        *,
        one_line: bool = False,
        keep_prompt_start: bool = False,
        instruction: str = "",
        write_prompt: Callable[[Prompt], str] = render_prompt,
        lead: str = "",
        strips_end: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.characters = characters
        self.one_line = one_line
        self.keep_prompt_start = keep_prompt_start
        self.instruction = instruction
        self.write_prompt = write_prompt
        self.lead = lead
        self.strips_end = strips_end

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """See ``TextEncoder.tokenize``."""
        limit = self.characters
        texts = [self._clean(self.instruction + self.write_prompt(group.prompt)) for group in groups]
        prompts = [text[:limit] if self.keep_prompt_start else text[-limit:] for text in texts]
        candidates = [tuple(map(self._answer, group.candidates)) for group in groups]
        distinct = dict.fromkeys(prompts)
        distinct.update(dict.fromkeys(candidate[:limit] for group in candidates for candidate in group))
        ids = dict(zip(distinct, self.tokenizer.encode(list(distinct)), strict=True))
        return [
            Tokens(
                prompt=ids[prompt],
                candidates=tuple(ids[candidate[:limit]] for candidate in group),
                prompts_cut=(len(text) > limit,) * len(group),
                candidates_cut=tuple(len(candidate) > limit for candidate in group),
                starts=(0,) * len(group),
                special_text=any(map(self.tokenizer.spells_special, (prompt, *group))),
            )
            for text, prompt, group in zip(texts, prompts, candidates, strict=True)
        ]

    def within(self, prompt: Prompt, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """See ``TextEncoder.within``."""
        return self.tokenizer.within(self._clean(answer)[: self.characters], spans)

    def token_counts(self, group: Group) -> list[int]:
        """See ``TextEncoder.token_counts``."""
        return [len(ids) for ids in self.tokenize([group])[0].candidates]

    def _answer(self, answer: str) -> str:
        text = self._clean(self.lead + answer)
        return text.rstrip() if self.strips_end else text

    def _clean(self, text: str) -> str:
        text = clean(str(text))
        return text.replace("\n", " ") if self.one_line else text


class PairTexts:
    """Answers whose ids as the first of a pair and as the second differ: both, one after the other.

    Args:
        first: encodes an answer as the first of a pair.
        second: encodes it as the second.
    """

    def __init__(self, first: SeparateTexts, second: SeparateTexts) -> None:
        self.first = first
        self.second = second

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """See ``TextEncoder.tokenize``; ``starts`` say where the ids as the second begin."""
        pairs = zip(self.first.tokenize(groups), self.second.tokenize(groups), strict=True)
        return [
            replace(
                first,
                candidates=tuple(map(np.concatenate, zip(first.candidates, second.candidates, strict=True))),
                starts=tuple(map(len, first.candidates)),
            )
            for first, second in pairs
        ]

    def within(self, prompt: Prompt, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """See ``TextEncoder.within``; of the ids as the first."""
        return self.first.within(prompt, answer, spans)

    def token_counts(self, group: Group) -> list[int]:
        """See ``TextEncoder.token_counts``."""
        return self.first.token_counts(group)
