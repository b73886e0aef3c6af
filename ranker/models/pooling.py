"""Pooling: from hidden states and a mask to one vector per row. The mask decides, never the padding id."""

from __future__ import annotations

import torch
from torch import Tensor


def first_token(hidden: Tensor) -> Tensor:
    """The first token's state, [CLS] of an encoder: (rows, sequence, hidden) -> (rows, hidden)."""
    return hidden[:, 0]


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: (rows, sequence, hidden), (rows, sequence) bool -> (rows, hidden)."""
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token's state, under left or right padding: (rows, sequence, hidden), mask -> (rows, hidden)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(dim=1)
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
