"""Heads: small fp32 modules from hidden states to logits."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

HEAD_MODULES: Final = (
    "head", "classifier", "score", "pooler", "lm_head", "cls", "regression_layer", "gating", "reward_transform_matrix",
)  # fmt: skip
"""Names of the modules after the backbone, in every family: never quantised, saved whole with every adapter."""


NEW_HEADS: Final = ("head", "classifier", "score")
"""Those that a run starts anew and gives a learning rate of their own; poolers and words are the backbone's."""


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
            inner = torch.tanh(self.dense(self.dropout(features.float())))
            out: Tensor = self.out(self.dropout(inner))
            return out
