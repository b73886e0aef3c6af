"""Pooling: from hidden states and a mask to one vector per row. The mask decides, never the padding id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers.utils.hub import cached_file

from ranker.config import Pooling
from ranker.errors import ConfigError


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


SETTING: Final = "1_Pooling/config.json"
OWN: Final[dict[str, Pooling]] = {"cls": "first_token", "mean": "mean"}
"""sentence-transformers' names of the poolings known here."""


def resolve(pooling: Pooling, name_or_path: str) -> Pooling:
    """``auto`` as the checkpoint's own sentence-transformers setting, [CLS] where it has none.

    Raises:
        ConfigError: the checkpoint pools in a way that is not known here.
    """
    if pooling != "auto":
        return pooling
    file = cached_file(name_or_path, SETTING, _raise_exceptions_for_missing_entries=False)
    if file is None:
        return "first_token"
    values: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    given = values.get("pooling_mode") or [
        flags.get(key, key) for key, on in values.items() if key.startswith("pooling_mode_") and on
    ]
    modes = [given] if isinstance(given, str) else list(given)
    if len(modes) != 1 or modes[0] not in OWN:
        raise ConfigError(
            f"{name_or_path}: pools by {', '.join(modes)}; expected {' or '.join(OWN)}, or set model.pooling=mean"
        )
    return OWN[modes[0]]


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden.gather(1, positions[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
