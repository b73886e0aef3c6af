"""From hidden states to outputs: pooling to one vector per row, and heads, small fp32 modules.

The mask decides what is pooled, never the padding id.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ranker.config import Pooling
from ranker.errors import ConfigError

HEAD_MODULES: Final = (
    "head",
    "classifier",
    "pre_classifier",
    "score",
    "pooler",
    "lm_head",
    "cls",
    "regression_layer",
    "gating",
    "reward_transform_matrix",
)
"""Names of the modules after the backbone, in every family: never quantised, saved whole with every adapter."""


NEW_HEADS: Final = ("head", "classifier", "pre_classifier", "score")
"""Those that a run starts anew and gives a learning rate of their own; poolers and words are the backbone's."""


def wide(values: Tensor) -> Tensor:
    """The numbers in fp32, or in fp64 where they are: heads and losses never compute in less."""
    return values if values.dtype == torch.float64 else values.float()


class PairwiseHead(nn.Module):
    """PairRM's head: Dropout, Linear(width, hidden), Tanh, Dropout, Linear(hidden, tasks).

    Always computed in fp32, whatever autocast does around it. Source: LLM-Blender ``pair_ranker/pairrm.py``.

    Args:
        width: features read (2 x hidden for [source; candidate], hidden for a lone [CLS]).
        hidden: width of the inner layer.
        tasks: number of outputs; a comparison is the mean over them.
        dropout: probability, training only.
    """

    def __init__(self, width: int, hidden: int, tasks: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, tasks)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(..., width) -> (..., tasks) fp32 logits."""
        with torch.autocast(features.device.type, enabled=False):
            inner = torch.tanh(self.dense(self.dropout(wide(features))))
            out: Tensor = self.out(self.dropout(inner))
            return out


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
KNOWN_POOLINGS: Final[dict[str, Pooling]] = {"cls": "first_token", "mean": "mean"}
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
    setting = values.get("pooling_mode") or [
        flags.get(key, key) for key, on in values.items() if key.startswith("pooling_mode_") and on
    ]
    modes = [setting] if isinstance(setting, str) else list(setting)
    if len(modes) != 1 or modes[0] not in KNOWN_POOLINGS:
        raise ConfigError(
            f"{name_or_path}: pools by {', '.join(modes)}; expected {' or '.join(KNOWN_POOLINGS)}, or set "
            "model.pooling=mean"
        )
    return KNOWN_POOLINGS[modes[0]]


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden.gather(1, positions[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
