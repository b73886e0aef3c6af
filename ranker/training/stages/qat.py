"""Quantization-aware training: the model learns to give under 8-bit rounding the scores that it gives without it.

Quantisation-aware training (arXiv 1712.05877) towards the model's own fp32 scores (arXiv 1503.02531), on the training
rows, without labels. Rounding is harsher than what is exported: one fixed scale per activation, no smoothing.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, get_linear_schedule_with_warmup
from transformers.pytorch_utils import Conv1D

from ranker.config import TrainingConfig
from ranker.models.heads import HEAD_MODULES
from ranker.progress import stepped
from ranker.scoring import batching
from ranker.training.batches import planned
from ranker.training.groups import Groups

logger = logging.getLogger(__name__)

MOMENTUM: Final = 0.95
"""Share of an activation's range that is kept when the next batch is seen."""

RATE: Final = 0.1
"""Its learning rate over the run's."""

WARMUP: Final = 0.1


def train_quantized(
    model: PreTrainedModel, groups: Groups, config: TrainingConfig, steps: int, *, learning_rate: float
) -> tuple[float, float]:
    """Train ``model`` in place for ``steps`` batches; its root-mean-square error under rounding, first and last tenth.

    The error is in units of the scores' standard deviation. The model is left in evaluation mode.
    """
    teacher = copy.deepcopy(model).eval()
    student = model.eval()  # without dropout: only rounding is to be learnt
    plan = planned(config.model_copy(update={"num_train_epochs": 1, "seed": config.seed + 1}), groups)
    layout, forward = groups.pipeline.layout, type(model).forward  # training may have left a bf16 one on the model
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE * learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    errors, spread = [], []
    with rounded(student):
        for items in stepped(list(islice(cycle(plan), steps)), "quantization-aware training"):
            units = [unit for item in items for unit in groups[item].units]
            arrays = batching.collate(layout, units)
            tensors = {name: torch.from_numpy(array).to(student.device) for name, array in arrays.items()}
            with torch.no_grad():
                wanted = forward(teacher, **tensors)
            rounded_outputs = forward(student, **tensors)
            counts = torch.tensor([len(row.candidates) for unit in units for row in unit.rows], device=wanted.device)
            present = torch.arange(wanted.shape[1], device=wanted.device) < counts[:, None]  # rows may have room left
            wanted = wanted[present]
            loss = nn.functional.mse_loss(rounded_outputs[present], wanted)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(student.parameters(), config.max_grad_norm or float("inf"))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            errors.append(loss.item())
            spread.append(wanted.var().item() if wanted.numel() > 1 else 0.0)
    tenth = max(1, steps // 10)
    scale = max(sum(spread) / steps, 1e-12)
    first, last = ((sum(part) / tenth / scale) ** 0.5 for part in (errors[:tenth], errors[-tenth:]))
    logger.info("error under 8-bit rounding, of the scores' deviation: %.3f at first, %.3f at the end", first, last)
    return first, last


@contextmanager
def rounded(model: PreTrainedModel) -> Iterator[None]:
    """Round weights and inputs of all of the backbone's matrix products to 8 bits; gradients pass through."""
    layers: list[Any] = [
        module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and set(HEAD_MODULES).isdisjoint(name.split("."))
    ]
    for layer in layers:
        layer.forward = partial(_product, layer, Range())
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class Range:
    """The lowest and highest number of an activation, followed from batch to batch."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def see(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Note ``states``; zero always lies between the two that are returned."""
        low, high = states.detach().amin().clamp(max=0), states.detach().amax().clamp(min=0)
        if self.low is not None and self.high is not None:
            low, high = (MOMENTUM * old + (1 - MOMENTUM) * new for old, new in ((self.low, low), (self.high, high)))
        self.low, self.high = low, high
        return low, high


def _product(layer: Any, seen: Range, states: Tensor) -> Tensor:
    """A product under rounding; DeBERTa's of positions, which an exported graph holds as constants, is left exact."""
    if states.dim() < 3:
        exact: Tensor = type(layer).forward(layer, states)
        return exact
    low, high = seen.see(states)
    step = ((high - low) / 255).clamp(min=1e-9)
    start = (-low / step).round()
    weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    units = (weight.detach().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-9)
    q = _rounded(states, step, -start, 255 - start)
    return nn.functional.linear(q, _rounded(weight, units, -127, 127), layer.bias)


def _rounded(values: Tensor, step: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Whole multiples of ``step``; the gradient is that of the identity."""
    whole = torch.clamp(torch.round(values / step), low, high) * step  # type: ignore[arg-type]
    return values + (whole - values).detach()
