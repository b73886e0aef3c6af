"""What becomes of one group's texts: the ids of its prompt and of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.records import Group, Prompt, Spans
from ranker.text.tokenizer import Ids


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of one group's prompt and candidates.

    Of layouts that read conversations whole, ``candidates`` are whole rows, ``starts`` say where the answer begins in
    each, and ``prompt`` is what they begin with; otherwise ``starts`` are 0.

    ``prompts_cut`` and ``candidates_cut`` say which texts were cut before they became ids: of each candidate, its
    prompt and its own. ``special_text`` says that a text spells a special token, which is read as characters.
    ``refused`` says of candidates why the chat template does not render them; they have no ids.
    """

    prompt: Ids
    candidates: tuple[Ids, ...]
    prompts_cut: tuple[bool, ...]
    candidates_cut: tuple[bool, ...]
    starts: tuple[int, ...]
    special_text: bool = False
    refused: Mapping[int, str] = field(default_factory=dict)

    def subset(self, chosen: Sequence[int]) -> Tokens:
        """The same prompt with some of the candidates, in this order."""
        places = {candidate: place for place, candidate in enumerate(chosen)}
        return replace(
            self,
            candidates=tuple(self.candidates[i] for i in chosen),
            prompts_cut=tuple(self.prompts_cut[i] for i in chosen),
            candidates_cut=tuple(self.candidates_cut[i] for i in chosen),
            starts=tuple(self.starts[i] for i in chosen),
            refused={places[i]: reason for i, reason in self.refused.items() if i in places},
        )


class TextEncoder(Protocol):
    """From texts to ids."""

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """Ids of every group, in order."""
        ...

    def within(self, prompt: Prompt, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """Which of the ids that ``tokenize`` gives for an answer have a character in one of ``spans``: (ids,)."""
        ...

    def token_counts(self, group: Group) -> list[int]:
        """Tokens of each candidate's text, before truncation."""
        ...
