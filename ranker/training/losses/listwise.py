"""Losses of ranked lists: one value per group of candidates, absent candidates masked.

All take ``scores`` (groups, candidates) logits, ``labels`` (groups, candidates) graded relevance, higher is better, and
``present`` (groups, candidates) bool, and return (groups,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def list_net(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """ListNet's top-one cross-entropy between softmax(labels) and softmax(scores) (Cao et al. 2007, ICML, eq. 6)."""
    log_probability = _masked(scores, present).log_softmax(dim=-1)
    target = _masked(labels, present).softmax(dim=-1)
    return -torch.where(present, target * log_probability, 0.0).sum(dim=-1)


def list_mle(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """ListMLE: minus the Plackett-Luce log-likelihood of the labelled order (Xia et al. 2008, ICML).

    ``sum_k (logsumexp of the scores at places k.. - score at place k)``, per candidate so that lists of different
    lengths weigh alike. Candidates with equal labels keep their input order.
    """
    order = _masked(labels, present).argsort(dim=-1, descending=True, stable=True)
    ranked = _masked(scores, present).gather(-1, order)
    kept = present.gather(-1, order)
    tail = ranked.flip(-1).logcumsumexp(dim=-1).flip(-1)
    loss = torch.where(kept, tail - ranked, 0.0).sum(dim=-1)
    return loss / present.sum(dim=-1).clamp(min=1)


def rank_net(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """RankNet: mean ``-log sigmoid(s_i - s_j)`` over all pairs with label i above label j (Burges et al. 2005, ICML).

    InstructGPT (arXiv 2203.02155) trains on all pairs of K ranked answers this way. A list without such a pair gives 0.
    """
    better = (labels[:, :, None] > labels[:, None, :]) & present[:, :, None] & present[:, None, :]
    difference = scores.float()[:, :, None] - scores.float()[:, None, :]
    return torch.where(better, softplus(-difference), 0.0).sum(dim=(1, 2)) / better.sum(dim=(1, 2)).clamp(min=1)


def _masked(values: Tensor, present: Tensor) -> Tensor:
    return values.float().masked_fill(~present, torch.finfo(torch.float32).min)
