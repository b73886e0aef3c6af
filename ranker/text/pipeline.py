"""The one path from groups to scores, shared by training, the torch scorer and the ONNX scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.records import Group
from ranker.scorer import Floats, GroupScores, failed
from ranker.text import batching
from ranker.text.layout import TextLayout
from ranker.text.packing import Packed, pack
from ranker.text.templates import clean, render_prompt
from ranker.text.tokenizer import Ids, TextTokenizer

Forward = Callable[[batching.Arrays], Floats]
"""From ``collate``'s arrays to logits: (rows, candidates, tasks)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of one group's prompt and candidates, and which texts were cut at the character limit."""

    prompt: Ids
    candidates: tuple[Ids, ...]
    prompt_cut: bool
    candidates_cut: tuple[bool, ...]


class TextPipeline:
    """Tokenises, packs, batches and scores groups for one layout.

    Args:
        layout: how the model reads a group.
        tokenizer: the model's tokenizer.
    """

    def __init__(self, layout: TextLayout, tokenizer: TextTokenizer) -> None:
        self.layout = layout
        self.tokenizer = tokenizer

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """Ids of every group; each distinct text is tokenised once."""
        limit = self.layout.character_limit
        prompts = [clean(render_prompt(group.prompt)) for group in groups]
        answers = [tuple(map(clean, group.candidates)) for group in groups]
        distinct = dict.fromkeys(prompt[-limit:] for prompt in prompts)
        distinct.update(dict.fromkeys(answer[:limit] for group in answers for answer in group))
        ids = dict(zip(distinct, self.tokenizer.encode(list(distinct)), strict=True))
        return [
            Tokens(
                prompt=ids[prompt[-limit:]],
                candidates=tuple(ids[answer[:limit]] for answer in group),
                prompt_cut=len(prompt) > limit,
                candidates_cut=tuple(len(answer) > limit for answer in group),
            )
            for prompt, group in zip(prompts, answers, strict=True)
        ]

    def pack(self, tokens: Tokens) -> Packed:
        """The rows of one group."""
        packed = pack(self.layout, tokens.prompt, tokens.candidates)
        return Packed(
            packed.rows,
            packed.truncated | np.array(tokens.candidates_cut, np.bool_),
            packed.prompt_truncated or tokens.prompt_cut,
            packed.together,
        )

    def score(self, groups: Sequence[Group], forward: Forward, batch_tokens: int) -> list[GroupScores]:
        """Score groups with ``forward`` in batches of at most ``batch_tokens`` padded tokens.

        Order-free layouts read each distinct answer of a group once, in an order of their own, so scores are bitwise
        the same whatever order the candidates come in. The published layout reads every ordered pair; its scores are
        the least-squares solution of the order-averaged logits, ``s_i - s_j`` for two candidates being
        ``(logit(i, j) - logit(j, i)) / 2``.
        """
        if self.layout.order_free:
            canonical = [Group(g.prompt, tuple(sorted(set(g.candidates)))) for g in groups]
        else:
            canonical = list(groups)
        packed = [self.pack(tokens) for tokens in self.tokenize(canonical)]
        raw = self._forward(packed, forward, batch_tokens)
        return [self._result(*item) for item in zip(groups, canonical, packed, raw, strict=True)]

    def _forward(self, packed: Sequence[Packed], forward: Forward, batch_tokens: int) -> list[NDArray[np.float32]]:
        """Per group a (N, N) matrix of directed logits (published) or (N,) scores."""
        counts = [len(item.truncated) for item in packed]
        shape = (lambda n: (n,)) if self.layout.order_free else (lambda n: (n, n))
        out = [np.zeros(shape(count), np.float32) for count in counts]
        for batch in batching.batches(batching.units(packed), batch_tokens):
            logits = forward(batching.collate(self.layout, batch)).mean(axis=-1)
            row_logits = iter(logits)
            for unit in batch:
                for row in unit.rows:
                    values = next(row_logits)
                    if self.layout.order_free:
                        out[unit.group][list(row.candidates)] = values[: len(row.candidates)]
                    else:
                        out[unit.group][row.candidates] = values[0] - values[1]
        return out

    def _result(self, group: Group, canonical: Group, packed: Packed, raw: NDArray[np.float32]) -> GroupScores:
        if not np.isfinite(raw).all():
            return failed(group, "the model gave NaN or infinity for this row; its weights or precision are at fault")
        if self.layout.order_free:
            place = {candidate: i for i, candidate in enumerate(canonical.candidates)}
            order = np.array([place[candidate] for candidate in group.candidates], np.intp)
            return GroupScores(raw[order], packed.truncated[order], packed.prompt_truncated)
        flips = int((np.triu(np.sign(raw) + np.sign(raw.T), 1) != 0).sum())
        scores = ((raw - raw.T) / 2).sum(axis=1) / max(1, len(raw))
        return GroupScores(scores, packed.truncated, packed.prompt_truncated, order_flips=flips)
