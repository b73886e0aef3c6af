"""Which of torch's kernels computes attention, where it is chosen and not left to torch."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Final

from torch.nn.attention import SDPBackend, sdpa_kernel

from ranker.config.section import AttentionKernel
from ranker.errors import ConfigError

KERNELS: Final[dict[AttentionKernel, SDPBackend]] = {
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Kernels that take a mask, by torch's names. Its flash kernel takes none; ``padding_free`` reads rows with it."""


def attention_kernel(name: AttentionKernel) -> AbstractContextManager[None]:
    """Within, ``scaled_dot_product_attention`` uses this kernel or fails; ``auto`` leaves the choice to torch."""
    return contextlib.nullcontext() if name == "auto" else sdpa_kernel(KERNELS[name])


def check_kernel(name: AttentionKernel, device: str) -> None:
    """Refuse a kernel that the device has not.

    Args:
        name: of the kernel.
        device: torch's name of the kind of device.

    Raises:
        ConfigError: naming those that it has.
    """
    if name not in ("auto", *KERNELS):
        raise ConfigError(f"expected attention_kernel auto, {', '.join(KERNELS)}; got '{name}'")
    if device != "cuda" and name not in ("auto", "math"):
        raise ConfigError(f"attention_kernel '{name}' is one of CUDA's; on {device} take auto or math")
