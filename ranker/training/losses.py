"""Losses: pure functions of logits and labels, one value per comparison, reduced by the caller."""

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


def order_consistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Penalty on position bias: the squared sum of the logits of (A, B) and (B, A), which should cancel.

    Args:
        forward: (comparisons, tasks) logits of (A, B).
        backward: (comparisons, tasks) logits of (B, A).

    Returns:
        (comparisons,) mean over tasks.
    """
    return (forward.float() + backward.float()).square().mean(dim=-1)
