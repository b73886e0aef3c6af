"""Which of torch's kernels computes attention, where it is chosen and not left to torch."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Final

from torch.nn.attention import SDPBackend, sdpa_kernel

from ranker.config.section import AttentionKernel
from ranker.errors import ConfigError
from ranker.models.attention.disentangled import compiled_attention

KERNELS: Final[dict[AttentionKernel, SDPBackend]] = {
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Kernels that take a mask, by torch's names. Its flash kernel takes none; ``padding_free`` reads rows with it."""


PLANNED_ONCE: Final = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""What ``auto`` lets torch choose from on CUDA: all but cuDNN's kernel, which torch prefers since Hopper.

cuDNN plans anew for every shape, and in every thread. On an H200 a training step of MiniLM took 129 ms with a new shape
each, and 13 ms without cuDNN; with one shape for all, 12 ms and 13.5 ms (docs/gpu.md).
"""


COMPILED: Final = "compiled"
"""DeBERTa's attention, compiled by torch for any shape."""


def attention_kernel(name: AttentionKernel, device: str) -> AbstractContextManager[None]:
    """Within, ``scaled_dot_product_attention`` uses this kernel or fails; ``auto`` leaves the choice to torch.

    On CUDA ``auto`` leaves out cuDNN's kernel, see ``PLANNED_ONCE``. ``compiled`` is for DeBERTa, whose attention is
    not that one.

    Args:
        name: of the kernel.
        device: torch's name of the kind of device.
    """
    if name == "auto":
        return sdpa_kernel(PLANNED_ONCE) if device == "cuda" else contextlib.nullcontext()
    return compiled_attention() if name == COMPILED else sdpa_kernel(KERNELS[name])


def check_kernel(name: AttentionKernel, device: str, family: str) -> None:
    """Refuse a kernel that the device or the model has not.

    Args:
        name: of the kernel.
        device: torch's name of the kind of device.
        family: of the backbone.

    Raises:
        ConfigError: naming those that there are.
    """
    if name not in ("auto", COMPILED, *KERNELS):
        raise ConfigError(f"expected attention_kernel auto, {COMPILED}, {', '.join(KERNELS)}; got '{name}'")
    disentangled = family == "deberta-v2"
    if name != "auto" and disentangled != (name == COMPILED):
        names = COMPILED if disentangled else ", ".join(KERNELS)
        raise ConfigError(f"attention_kernel '{name}' is not one of '{family}'; take auto or {names}")
    if name == COMPILED:
        return
    if device != "cuda" and name not in ("auto", "math"):
        raise ConfigError(f"attention_kernel '{name}' is one of CUDA's; on {device} take auto or math")
