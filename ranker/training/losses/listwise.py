"""Losses of ranked lists: one value per group of candidates, absent candidates masked.

All take ``scores`` (groups, candidates) logits, ``labels`` (groups, candidates) graded relevance, higher is better, and
``present`` (groups, candidates) bool, and return (groups,).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ranker.models.heads import wide
from ranker.training.losses.loss import Batch, Loss, at


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
    difference = wide(scores)[:, :, None] - wide(scores)[:, None, :]
    return torch.where(better, softplus(-difference), 0.0).sum(dim=(1, 2)) / better.sum(dim=(1, 2)).clamp(min=1)


def _masked(values: Tensor, present: Tensor) -> Tensor:
    return wide(values).masked_fill(~present, torch.finfo(torch.float32).min)


class ListLoss(Loss):
    """A loss of ranked lists: the sum over the data's rows, averaged over the criteria that have a label.

    Of a row that is only partly read with its group, the candidates that are read are the list.

    A subclass says what a list costs in ``per_list``.
    """

    @abstractmethod
    def per_list(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """One value (groups,) each; arguments as described at the top of this module."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``Loss.__call__``."""
        values = at(outputs, batch["cells"]).movedim(-1, 0)
        labels = batch["labels"].movedim(-1, 0)
        present = ~labels.isnan()
        criteria = zip(values, labels.nan_to_num(), present, strict=True)
        losses = torch.stack([self.per_list(*criterion) for criterion in criteria])
        known = present.any(dim=-1)
        return ((losses * known).sum(dim=0) / known.sum(dim=0).clamp(min=1) * batch["list_weight"]).sum()

    def size(self, batch: Batch) -> Tensor:
        """The rows that count."""
        return batch["counted"]


class ListNet(ListLoss):
    """``list_net`` of every group."""

    def per_list(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """See ``ListLoss``."""
        return list_net(scores, labels, present)


class ListMLE(ListLoss):
    """``list_mle`` of every group."""

    def per_list(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """See ``ListLoss``."""
        return list_mle(scores, labels, present)


class RankNet(ListLoss):
    """``rank_net`` of every group."""

    def per_list(self, scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        """See ``ListLoss``."""
        return rank_net(scores, labels, present)
