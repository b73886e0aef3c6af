"""Token-level pairwise loss of decoders: answers are compared from the first differing token on."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ranker.models.heads import wide
from ranker.training.losses.loss import Batch, Loss


def token_pairwise(chosen: Tensor, rejected: Tensor, span: Tensor) -> Tensor:
    """Bradley-Terry at every token from the first difference to the end of the longer answer (trlx, summarize_rlhf).

    trlx writes ``-log(sigmoid(x))``, which underflows, and asserts that the two answers differ; here identical answers
    give 0. The mean is over the pair's own tokens, so long answers do not outweigh short ones.

    Args:
        chosen: (pairs, sequence) value of every token of the preferred answers.
        rejected: (pairs, sequence) value of every token of the others.
        span: (pairs, sequence) bool, the tokens compared; see ``differing_span``.

    Returns:
        (pairs,)
    """
    loss = softplus(wide(rejected) - wide(chosen))
    return torch.where(span, loss, 0.0).sum(dim=-1) / span.sum(dim=-1).clamp(min=1)


def held_values(values: Tensor, mask: Tensor) -> Tensor:
    """Values after the end of a right-padded row: the last real token's, so that padding is never compared.

    Args:
        values: (rows, sequence) value of every token.
        mask: (rows, sequence) bool, True for real tokens.

    Returns:
        (rows, sequence)
    """
    positions = torch.arange(values.shape[1], device=values.device)
    last = mask.sum(dim=-1, keepdim=True) - 1
    return values.gather(1, torch.minimum(positions, last))


def differing_span(chosen: Tensor, rejected: Tensor, chosen_mask: Tensor, rejected_mask: Tensor) -> Tensor:
    """Positions from the first token at which two right-padded rows differ to the end of the longer.

    A shared prompt is never part of it. Padding counts as a difference, so an answer that is a prefix of the other is
    compared from where it ends.

    Args:
        chosen: (pairs, sequence) ids.
        rejected: (pairs, sequence) ids.
        chosen_mask: (pairs, sequence) bool, True for real tokens.
        rejected_mask: (pairs, sequence) bool.

    Returns:
        (pairs, sequence) bool; all False where the rows are identical.
    """
    differs = (chosen_mask | rejected_mask) & ((chosen != rejected) | (chosen_mask != rejected_mask))
    from_first = differs.cumsum(dim=-1) > 0
    return from_first & (chosen_mask | rejected_mask)


class TokenPairwise(Loss):
    """``token_pairwise`` of every comparison, summed by the comparisons' weight.

    Answers are compared from their first token on. Where rows have token spans, only tokens at places that lie in a
    span of either answer are compared. A prompt cut to different lengths makes two answers begin at different places,
    so both are moved to the front.
    """

    every_token: ClassVar[bool] = True
    linear_in_targets: ClassVar[bool] = True

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``Loss.__call__``."""
        blocks = batch["block_ids"]
        values = self._values(outputs, batch)
        begin = (blocks > 0).int().argmax(dim=1, keepdim=True)
        places = begin + torch.arange(blocks.shape[1], device=blocks.device)
        moved = places.clamp(max=blocks.shape[1] - 1)
        ids, values = batch["input_ids"].gather(1, moved), values.gather(1, moved)
        mask = places < (blocks >= 0).sum(dim=1, keepdim=True)
        a, b = batch["left"][:, 0], batch["right"][:, 0]
        span = differing_span(ids[a], ids[b], mask[a], mask[b])
        if "compared" in batch:
            of_a, of_b = (
                batch["compared"][:, side].gather(1, moved[end]) & mask[end] for side, end in enumerate((a, b))
            )
            span &= of_a | of_b
        left, right = values[a], values[b]
        target = batch["targets"].nanmean(dim=-1)
        loss = target * token_pairwise(left, right, span) + (1 - target) * token_pairwise(right, left, span)
        return (loss * batch["weight"]).sum()

    def size(self, batch: Batch) -> Tensor:
        """The weight of the comparisons that have a label."""
        return batch["weight"].sum()

    def scores(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What the last real token says."""
        return self._values(outputs, batch)[:, -1, None, None]

    @staticmethod
    def _values(outputs: Tensor, batch: Batch) -> Tensor:
        return held_values(outputs[..., 0], batch["block_ids"] >= 0)
