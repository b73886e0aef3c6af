"""``max_tokens_per_forward: auto``: the largest forward pass whose training fits the device's memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from ranker.config import TrainingConfig
from ranker.config.run import AUTO_TOKENS
from ranker.errors import ConfigError
from ranker.models import memory
from ranker.scoring.executor import out_of_memory
from ranker.training.batches import Collator, RunPlan, planned
from ranker.training.groups import Groups
from ranker.training.losses import Loss

logger = logging.getLogger(__name__)

SMALLEST: Final = 256
"""Tokens of a pass below which no smaller one is tried."""

TARGETS: Final = (
    *("left", "right", "targets", "margin", "weight", "compared"),
    *("cells", "labels", "list_weight", "counted", "answers", "answer_labels"),
)
"""What a loss reads of a batch; the rest are the model's arrays."""


def loss_of(loss: Loss, batch: Mapping[str, Tensor]) -> memory.Compute:
    """The loss of a batch, from a model's forward and the batch's arrays."""
    options = {"every_token": True} if loss.every_token else {}

    def compute(forward: Callable[..., Tensor], arrays: Mapping[str, Tensor]) -> Tensor:
        outputs = forward(**{name: array for name, array in arrays.items() if name not in TARGETS}, **options)
        share: Tensor = loss(outputs, dict(arrays)) / loss.size(dict(arrays))
        return share

    return compute


class TokensThatFit:
    """Finds ``max_tokens_per_forward`` for a run.

    The memory of the largest batch is known from a trace (``ranker.models.memory``), without running it; the size that
    is chosen is then tried once. Weights, their gradients, the optimizer's states and the temporary copies of its step
    are counted.

    Args:
        config: of the run; ``tokens_per_step`` is the largest size that is considered.
        groups: the training data.
        model: on its device.
        loss: of the run.
        autocast: the type in which the backbone computes, if not its own.
        processes: that train together, each with one device.
    """

    def __init__(
        self,
        config: TrainingConfig,
        groups: Groups,
        model: nn.Module,
        loss: Loss,
        *,
        autocast: torch.dtype | None = None,
        processes: int = 1,
    ) -> None:
        self.config = config
        self.groups = groups
        self.model = model
        self.loss = loss
        self.autocast = autocast
        self.processes = processes
        self.device = next(model.parameters()).device

    def find(self) -> int:
        """The number of tokens.

        Raises:
            ConfigError: not even the smallest pass fits.
        """
        free = memory.free_memory(self.device)
        sizes = self._sizes()
        first = memory.fitting(self._need, sizes, free)
        for size in sizes[sizes.index(first) :]:
            if self._runs(size):
                logger.info("training.max_tokens_per_forward: %d tokens; %.2f GiB are free", size, free / 2**30)
                return size
            gc.collect()
        raise ConfigError(
            f"training.max_tokens_per_forward: a pass of {sizes[-1]} tokens does not fit the memory of {self.device} "
            f"({free / 2**30:.2f} GiB are free); set training.activation_checkpointing=true, lower model.max_length, "
            "or train an adapter (lora)"
        )

    def _sizes(self) -> list[int]:
        """The step's tokens, and its halves down to what the longest row needs."""
        largest = (self.config.tokens_per_step or AUTO_TOKENS) // self.processes
        if self.device.type == "cpu":
            largest = min(largest, AUTO_TOKENS)
        sizes: list[int] = []
        while not sizes or largest >= SMALLEST:
            try:
                self._plan(largest)
            except ConfigError:
                if not sizes:
                    raise
                break
            sizes.append(largest)
            largest //= 2
        return sizes

    def _plan(self, tokens: int) -> RunPlan:
        once = {"max_tokens_per_forward": tokens, "num_train_epochs": 1.0}
        return planned(self.config.model_copy(update=once), self.groups)

    def _batch(self, tokens: int) -> dict[str, Tensor]:
        """The largest batch of a run with passes of this size."""
        items = self._plan(tokens).largest(self.groups)
        collate = Collator(self.groups.pipeline, tokens if self.config.length_buckets else None)
        return collate([self.groups[item] for item in items])

    def _need(self, tokens: int) -> int:
        batch = self._batch(tokens)
        try:
            compute = loss_of(self.loss, batch)
            return memory.training_memory(self.model, compute, batch, autocast=self.autocast).beyond_weights
        except RuntimeError as error:  # quantized weights, and whatever else has no fake tensors
            logger.info("the memory of a pass cannot be traced (%s); it is tried instead", str(error).splitlines()[0])
            return 0

    def _runs(self, tokens: int) -> bool:
        """Whether a forward and backward pass of the largest batch fits; gradients and random states are restored."""
        batch = {name: array.to(self.device) for name, array in self._batch(tokens).items()}
        self.model.train()
        try:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=bool(self.autocast)):
                    loss = loss_of(self.loss, batch)(self.model, batch)
                torch.autograd.backward(loss)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            logger.info("a pass of %d tokens does not fit: %s", tokens, str(error).splitlines()[0])
            return False
        finally:
            self.model.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return True
