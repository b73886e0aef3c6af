"""Losses of comparisons: one value per pair, reduced by the caller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def bradley_terry(logits: Tensor, targets: Tensor, margin: Tensor | None = None) -> Tensor:
    """Bradley-Terry log-loss of comparisons, with ties and soft labels (InstructGPT, arXiv 2203.02155, eq. 1).

    ``t softplus(m - x) + (1 - t) softplus(m + x)``: for a hard label and no margin this is ``-log sigmoid(x)``, in a
    form that never overflows (LLM-Blender's ``log(sigmoid(x))`` underflows in half precision).

    Args:
        logits: (comparisons, tasks) log-odds that the left answer is better.
        targets: (comparisons, tasks) probability that it is, 0.5 a tie, NaN a missing label.
        margin: (comparisons,) logits by which the better answer must lead (Llama 2, arXiv 2307.09288); None is 0.

    Returns:
        (comparisons,) mean over the tasks that have a label, 0 where none has.
    """
    logits = logits.float()
    offset = torch.zeros(()) if margin is None else margin.float()[:, None]
    known = ~targets.isnan()
    target = torch.where(known, targets, 0.0)
    loss = target * softplus(offset - logits) + (1 - target) * softplus(offset + logits)
    return (loss * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


def log_exp(logits: Tensor, targets: Tensor, margin: Tensor | None = None) -> Tensor:
    """Anthropic's ``log(1 + exp(r_rejected - r_chosen))`` (arXiv 2204.05862, section 2.3), as ``softplus``.

    It is the same function as ``-log sigmoid``; written out naively it overflows in fp32 past a difference of 88.
    The original has no margin; here it is honoured. Arguments and result as in ``bradley_terry``.
    """
    return bradley_terry(logits, targets, margin)


def center_rewards(left: Tensor, right: Tensor) -> Tensor:
    """Pull the sum of a pair's rewards to zero: ``(r_left + r_right)^2`` (arXiv 2312.09244; TRL's auxiliary term).

    Bradley-Terry leaves the level of rewards free; TRL recommends the coefficient 0.01 for this term.

    Args:
        left: (comparisons, tasks) rewards of the left answers.
        right: (comparisons, tasks) rewards of the right answers.

    Returns:
        (comparisons,) mean over tasks.
    """
    return (left.float() + right.float()).square().mean(dim=-1)


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
    loss = softplus(rejected.float() - chosen.float())
    return torch.where(span, loss, 0.0).sum(dim=-1) / span.sum(dim=-1).clamp(min=1)


def answer_token(left: Tensor, right: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the answer's first word, A or B, over the whole vocabulary (SteamSHP's seq2seq training).

    Args:
        left: (pairs, 1) log-probability of the word that names the left answer.
        right: (pairs, 1) log-probability of the word that names the right one.
        targets: (pairs, tasks) probability that the left is better, NaN a missing label.

    Returns:
        (pairs,) mean over the tasks that have a label, 0 where none has.
    """
    known = ~targets.isnan()
    target = torch.where(known, targets, 0.0)
    loss = -(target * left.float() + (1 - target) * right.float())
    return (loss * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


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
    begun = differs.cumsum(dim=-1) > 0
    return begun & (chosen_mask | rejected_mask)


def order_consistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Penalty on position bias: the squared sum of the logits of (A, B) and (B, A), which should cancel.

    Args:
        forward: (comparisons, tasks) logits of (A, B).
        backward: (comparisons, tasks) logits of (B, A).

    Returns:
        (comparisons,) mean over tasks.
    """
    return (forward.float() + backward.float()).square().mean(dim=-1)
