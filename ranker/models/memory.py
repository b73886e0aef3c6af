"""How much memory a forward or backward pass takes, known before it runs.

The pass is traced on fake tensors, which have shapes and no numbers: every architecture, with or without activation
checkpointing and autocast, gets the bytes that its own operations allocate. Workspaces within an operation and the
allocator's fragments are not seen; ``MARGIN`` is left for them.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

logger = logging.getLogger(__name__)

MARGIN: Final = 0.15
"""The share of the free memory that is left alone."""

STATES: Final = 8
"""Bytes of AdamW's two states for a parameter."""

TEMPORARY: Final = 4
"""Bytes for a parameter that AdamW's fused loop over all tensors needs beside its states."""

MEMORY: Final = Path("/proc/meminfo")
MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
MEMORY_USED: Final = Path("/sys/fs/cgroup/memory.current")

Compute = Callable[[Callable[..., Tensor], Mapping[str, Tensor]], Tensor]
"""From a model's forward and the arrays of a pass to its outputs or its loss."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive among those made within: ``now``, and the most, ``peak``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, out)
        return out

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key, size)
        return tensor

    def _freed(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


@dataclass(frozen=True, slots=True)
class PassMemory:
    """Bytes that training or scoring takes.

    Attributes:
        weights: parameters and buffers.
        passing: the most that a pass adds to them: activations and, in training, gradients.
        gradients: what of ``passing`` stays after the pass.
        states: the optimizer's states.
        temporary: what the optimizer needs while it steps, when activations are gone.
    """

    weights: int
    passing: int
    gradients: int = 0
    states: int = 0
    temporary: int = 0

    @property
    def beyond_weights(self) -> int:
        """The most that is alive at once besides the weights."""
        return self.states + max(self.passing, self.gradients + self.temporary)

    @property
    def peak(self) -> int:
        """The most that is alive at once."""
        return self.weights + self.beyond_weights


def training_memory(
    model: nn.Module, compute: Compute, arrays: Mapping[str, Tensor], *, autocast: torch.dtype | None = None
) -> PassMemory:
    """What training by AdamW takes with forward passes of this shape.

    Args:
        model: with its weights on the device that is asked about.
        compute: the loss.
        arrays: of one pass, on any device; only shapes and types are read.
        autocast: the type in which the backbone computes, if not its own.

    Raises:
        RuntimeError: a part of the model cannot be traced, such as quantized weights.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    count = sum(parameter.numel() for parameter in trained)
    gradients = sum(parameter.nbytes for parameter in trained)
    passing = _traced(model, compute, arrays, autocast, backward=True)
    return PassMemory(_weights(model), passing, gradients, STATES * count, TEMPORARY * count)


def scoring_memory(
    model: nn.Module, compute: Compute, arrays: Mapping[str, Tensor], *, autocast: torch.dtype | None = None
) -> PassMemory:
    """What scoring takes with forward passes of this shape; arguments and errors as in ``training_memory``."""
    return PassMemory(_weights(model), _traced(model, compute, arrays, autocast, backward=False))


def _traced(
    model: nn.Module, compute: Compute, arrays: Mapping[str, Tensor], autocast: torch.dtype | None, *, backward: bool
) -> int:
    """The most bytes that are alive within a pass, besides weights and inputs."""
    device = next(model.parameters()).device
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.set_grad_enabled(backward):
        parameters: dict[str, Tensor] = {
            name: nn.Parameter(fake.from_tensor(value.detach()), requires_grad=value.requires_grad)
            for name, value in model.named_parameters()
        }
        buffers: dict[str, Tensor] = {name: fake.from_tensor(value) for name, value in model.named_buffers()}
        inputs = {name: torch.empty(a.shape, dtype=a.dtype, device=device) for name, a in arrays.items()}

        def forward(**arguments: Any) -> Tensor:
            out: Tensor = torch.func.functional_call(model, (parameters, buffers), kwargs=arguments)
            return out

        with LiveBytes() as bytes_:
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                result = compute(forward, inputs)
            if backward:
                trained = [value for value in parameters.values() if value.requires_grad]
                kept = torch.autograd.grad(result, trained, allow_unused=True)
                del kept
    peak: int = bytes_.peak
    return peak


def _weights(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device: of a GPU those of its driver and of torch's cache."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return available_memory()


def available_memory() -> int:
    """Bytes of memory that this process may still take: what the machine has free, limited by the cgroup's."""
    try:
        lines = MEMORY.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (path.read_text(encoding="ascii").strip() for path in (MEMORY_LIMIT, MEMORY_USED))
    except OSError:
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))


def fitting(need: Callable[[int], int], sizes: list[int], free: int) -> int:
    """The first of ``sizes``, largest first, that needs at most the free memory without ``MARGIN``; else the last."""
    room = int(free * (1 - MARGIN))
    for size in sizes[:-1]:
        needed = need(size)
        logger.debug("%d tokens a pass take %.2f GiB of %.2f", size, needed / 2**30, room / 2**30)
        if needed <= room:
            return size
    return sizes[-1]
