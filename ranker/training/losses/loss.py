"""What a loss is: an object that the trainer calls with a batch, and divides by its size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

Batch = dict[str, Tensor]
"""A batch as ``ranker.training.batches.Collator`` makes it."""


class Loss(ABC):
    """A loss with its settings.

    The trainer calls it with the outputs of one forward pass and divides by the ``size`` of the whole optimizer step
    over all processes, so that gradients do not depend on how a step is cut into passes. ``ranker.train(loss=...)``
    takes an object of any subclass; subclass ``ComparisonLoss``, ``ListLoss`` or ``AnswerLoss`` rather than this.

    Args:
        config: the settings; one of the classes of ``ranker.config.losses``.
    """

    every_token: ClassVar[bool] = False
    """Whether it needs the value of every token: the model is called with ``every_token=True``."""

    linear_in_targets: ClassVar[bool] = False
    """Whether comparisons of the same two answers with different targets cost what one comparison with their mean
    target and the sum of their weights costs. If not, they stay apart."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    @abstractmethod
    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The sum of the loss over the batch, a scalar; ballast counts nothing.

        Args:
            outputs: (rows, candidates, outputs), or (rows, sequence, outputs) with ``every_token``.
            batch: what the collator made.
        """

    @abstractmethod
    def size(self, batch: Batch) -> Tensor:
        """What the sum is divided by, a scalar."""

    def scores(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The outputs (rows, candidates, outputs) that the model would be scored by, for the log."""
        return outputs


def at(outputs: Tensor, cells: Tensor) -> Tensor:
    """The outputs at ``cells`` (..., 2), each a (row, column): (..., outputs)."""
    return outputs[cells[..., 0], cells[..., 1]]
