"""Pooling: from hidden states and a mask to one vector per row. The mask decides, never the padding id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The first real token's state, [CLS] of an encoder: (rows, sequence, hidden), mask -> (rows, hidden)."""
    return _at(hidden, mask.int().argmax(dim=1))


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: (rows, sequence, hidden), (rows, sequence) bool -> (rows, hidden)."""
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token's state, under left or right padding: (rows, sequence, hidden), mask -> (rows, hidden)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(dim=1)
    return _at(hidden, last)


POOLINGS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "first_token": first_token,
    "mean": mean,
    "last_token": last_token,
}


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden.gather(1, positions[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
