"""Losses of comparisons: functions of two scores, one value per pair, and the objects that apply them to a batch."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ranker.config.losses import ComparisonLossConfig, PairLossConfig
from ranker.models.heads import wide
from ranker.training.losses.loss import Batch, Loss, at


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
    logits = wide(logits)
    offset = torch.zeros(()) if margin is None else wide(margin)[:, None]
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
    return _squared_sum(left, right)


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
    loss = -(target * wide(left) + (1 - target) * wide(right))
    return (loss * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


def order_consistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Penalty on position bias: the squared sum of the logits of (A, B) and (B, A), which should cancel.

    Args:
        forward: (comparisons, tasks) logits of (A, B).
        backward: (comparisons, tasks) logits of (B, A).

    Returns:
        (comparisons,) mean over tasks.
    """
    return _squared_sum(forward, backward)


def _squared_sum(a: Tensor, b: Tensor) -> Tensor:
    return (wide(a) + wide(b)).square().mean(dim=-1)


class ComparisonLoss(Loss):
    """A loss of compared pairs: sums over comparisons by their weight; the weights of a row of the data sum to 1.

    A subclass says what a comparison costs in ``per_comparison``. The settings add TRL's auxiliary term and a
    penalty on scores that change with the order.
    """

    def __init__(self, config: PairLossConfig | None = None) -> None:
        super().__init__(config)
        self.settings: PairLossConfig = config or ComparisonLossConfig(type="bradley_terry")

    @abstractmethod
    def per_comparison(self, left: Tensor, right: Tensor, targets: Tensor, margin: Tensor) -> Tensor:
        """One value (comparisons,) each.

        Args:
            left: (comparisons, outputs) of the left answers.
            right: (comparisons, outputs) of the right answers.
            targets: (comparisons, outputs) probability that the left is better, NaN a missing label.
            margin: (comparisons,) logits by which the better answer must lead.
        """

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``Loss.__call__``."""
        left, right = (at(outputs, batch[side]) for side in ("left", "right"))
        loss = self.per_comparison(left, right, batch["targets"], batch["margin"])
        if self.settings.center_rewards_coefficient:
            loss = loss + self.settings.center_rewards_coefficient * center_rewards(left, right)
        if self.settings.order_consistency:  # the two orders of a pair lie next to each other
            logits = left - right
            penalty = order_consistency(logits[0::2], logits[1::2]).repeat_interleave(2)
            loss = loss + self.settings.order_consistency * penalty
        return (loss * batch["weight"]).sum()

    def size(self, batch: Batch) -> Tensor:
        """The weight of the comparisons that have a label."""
        return batch["weight"].sum()


class BradleyTerry(ComparisonLoss):
    """``bradley_terry`` of the difference of the two scores."""

    linear_in_targets: ClassVar[bool] = True

    def per_comparison(self, left: Tensor, right: Tensor, targets: Tensor, margin: Tensor) -> Tensor:
        """See ``ComparisonLoss``."""
        return bradley_terry(left - right, targets, margin)


class LogExp(ComparisonLoss):
    """``log_exp`` of the difference of the two scores."""

    linear_in_targets: ClassVar[bool] = True

    def per_comparison(self, left: Tensor, right: Tensor, targets: Tensor, margin: Tensor) -> Tensor:
        """See ``ComparisonLoss``."""
        return log_exp(left - right, targets, margin)


class AnswerToken(ComparisonLoss):
    """``answer_token`` of the two log-probabilities."""

    linear_in_targets: ClassVar[bool] = True

    def per_comparison(self, left: Tensor, right: Tensor, targets: Tensor, margin: Tensor) -> Tensor:
        """See ``ComparisonLoss``; margins do not apply."""
        return answer_token(left, right, targets)
