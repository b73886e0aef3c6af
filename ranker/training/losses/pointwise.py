"""Losses of single answers: one value per answer, missing labels masked."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ranker.config.losses import CrossEntropyLossConfig, HuberLossConfig
from ranker.models.heads import wide
from ranker.training.losses.loss import Batch, Loss, at


def cross_entropy(
    logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, label_smoothing_factor: float = 0.0
) -> Tensor:
    """Cross-entropy of accept/reject or any classes.

    Args:
        logits: (answers, classes).
        labels: (answers,) class numbers, -100 a missing label.
        class_weights: (classes,) factor of each class.
        label_smoothing_factor: share of the target spread over all classes, in [0, 1).

    Returns:
        (answers,), 0 where the label is missing.
    """
    weight = None if class_weights is None else class_weights.to(wide(logits))
    return nn.functional.cross_entropy(
        wide(logits), labels, weight=weight, label_smoothing=label_smoothing_factor, reduction="none"
    )


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of one logit per answer against a probability in [0, 1], NaN a missing label; as ``mse``."""
    known = ~labels.isnan()
    loss = nn.functional.binary_cross_entropy_with_logits(
        wide(logits), torch.where(known, labels, 0.5).to(wide(logits)), reduction="none"
    )
    return _mean_known(loss, known)


def mse(scores: Tensor, labels: Tensor) -> Tensor:
    """Squared error; with several aspects the mean over those that have a label (ArmoRM's first stage, NaN masked).

    Args:
        scores: (answers, aspects).
        labels: (answers, aspects), NaN a missing label.

    Returns:
        (answers,), 0 where no aspect has a label.
    """
    known = ~labels.isnan()
    return _mean_known((wide(scores) - torch.where(known, labels, 0.0)).square(), known)


def huber(scores: Tensor, labels: Tensor, *, delta: float = 1.0) -> Tensor:
    """Huber's loss: squared up to ``delta``, linear beyond (Huber 1964); arguments and result as in ``mse``."""
    known = ~labels.isnan()
    target = torch.where(known, labels, 0.0).to(wide(scores))
    return _mean_known(nn.functional.huber_loss(wide(scores), target, delta=delta, reduction="none"), known)


def rmse(scores: Tensor, labels: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    """Root of the batch's mean squared error, as a 0-d tensor: the one loss that is no mean over answers.

    ``epsilon`` keeps the gradient finite at zero error. Arguments as in ``mse``; batches without a label give ~0.
    """
    known = ~labels.isnan()
    error = torch.where(known, wide(scores) - torch.where(known, labels, 0.0), 0.0)
    return (error.square().sum() / known.sum().clamp(min=1) + epsilon).sqrt()


def _mean_known(loss: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, loss, 0.0).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


class AnswerLoss(Loss):
    """A loss of single answers: the mean over the labelled answers of a pass, times its rows.

    A subclass says what answers cost in ``per_answer``.
    """

    @abstractmethod
    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """One value (answers,) each, or one number for all.

        Args:
            outputs: (answers, outputs).
            labels: (answers, labels), NaN a missing one; no answer lacks them all.
        """

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``Loss.__call__``."""
        labels = batch["answer_labels"]
        if not len(labels):
            return outputs.sum() * 0.0
        return self.per_answer(at(outputs, batch["answers"]), labels).mean() * batch["counted"]

    def size(self, batch: Batch) -> Tensor:
        """The rows that count."""
        return batch["counted"]


class CrossEntropy(AnswerLoss):
    """``cross_entropy`` of reject and accept; an answer is accepted from ``accept_threshold`` on."""

    def __init__(self, config: CrossEntropyLossConfig | None = None) -> None:
        super().__init__(config)
        self.settings = config or CrossEntropyLossConfig(type="cross_entropy")

    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """See ``AnswerLoss``."""
        return cross_entropy(
            outputs,
            (labels[:, 0] >= self.settings.accept_threshold).long(),
            class_weights=torch.tensor(self.settings.class_weights),
            label_smoothing_factor=self.settings.label_smoothing_factor,
        )


class BinaryCrossEntropy(AnswerLoss):
    """``binary_cross_entropy`` of one logit per label."""

    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """See ``AnswerLoss``."""
        return binary_cross_entropy(outputs, labels)


class MSE(AnswerLoss):
    """``mse`` of the outputs."""

    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """See ``AnswerLoss``."""
        return mse(outputs, labels)


class RMSE(AnswerLoss):
    """``rmse`` over the answers of a pass."""

    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """See ``AnswerLoss``."""
        return rmse(outputs, labels)


class Huber(AnswerLoss):
    """``huber`` of the outputs."""

    def __init__(self, config: HuberLossConfig | None = None) -> None:
        super().__init__(config)
        self.settings = config or HuberLossConfig(type="huber")

    def per_answer(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """See ``AnswerLoss``."""
        return huber(outputs, labels, delta=self.settings.delta)
