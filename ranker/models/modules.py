"""A backbone, a pooling and a stack of small modules, as sentence-transformers' modular rerankers have them.

Names of the modules and their settings are those of sentence-transformers 6.2 (``Pooling``, ``Dense``, ``LayerNorm``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from ranker.errors import CheckpointError
from ranker.models import backbones, decoders
from ranker.models.attention.blocks import row_mask
from ranker.models.heads import POOLINGS, wide
from ranker.models.stored import StoredBackbone


class ModulesConfig(StoredBackbone, PretrainedConfig):  # type: ignore[misc]
    """Configuration of a ``ModulesModel``.

    Args:
        backbone: the backbone's own configuration, as a dict with ``model_type``.
        text: the layout, as a dict.
        pooling: names of ``POOLERS``; several are read side by side.
        modules: what follows the pooling: dicts with ``kind`` (``dense`` or ``layer_norm``) and its settings.
    """

    model_type = "ranker_modules"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        pooling: Sequence[str] = ("cls",),
        modules: Sequence[dict[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.text = text or {}
        self.pooling = list(pooling)
        self.modules = [dict(module) for module in modules]
        super().__init__(**kwargs)


class Dense(nn.Module):
    """A linear layer and an activation, with what it read added to the result where ``residual`` says so.

    Raises:
        CheckpointError: an activation that torch does not have.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, activation: str, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = activation_of(activation)
        self.adds_input = residual
        if residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(rows, inputs) -> (rows, outputs)."""
        out: Tensor = self.activation(self.linear(states))
        if not self.adds_input:
            return out
        return out + (self.residual(states) if hasattr(self, "residual") else states)


class Normalization(nn.Module):
    """A layer norm under the name that sentence-transformers gives it."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, states: Tensor) -> Tensor:
        """(rows, dimension) -> the same."""
        out: Tensor = self.norm(states)
        return out


def activation_of(name: str) -> nn.Module:
    """An activation by its dotted name, of torch's own.

    Raises:
        CheckpointError: another one, which would be code of the checkpoint.
    """
    kind = getattr(nn, name.rpartition(".")[2], None)
    if not name.startswith("torch.nn.modules.") or not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise CheckpointError(f"activation '{name}' does not belong to torch, and code of a checkpoint is not run")
    return kind()


class ModulesModel(PreTrainedModel):  # type: ignore[misc]
    """Scores ``head(pooling(backbone(row)))``, the pooling and the head in fp32."""

    config_class = ModulesConfig
    base_model_prefix = "model"
    _supports_attention_backend = True
    _supports_sdpa = True

    def __init__(self, config: ModulesConfig) -> None:
        super().__init__(config)
        inner = config.backbone_config()
        self.layout = config.layout
        self.is_encoder = backbones.family(inner) in backbones.FAMILIES
        self.model = backbones.build(inner) if self.is_encoder else AutoModel.from_config(inner)
        self.head = nn.ModuleList(map(_module, config.modules))
        self.post_init()

    def forward(self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Raw fp32 logits (rows, 1, outputs); arguments as made by ``ranker.scoring.batching.collate``."""
        mask = block_ids >= 0
        if self.is_encoder:
            hidden = backbones.encode(self.model, input_ids, block_ids, position_ids, row_mask(block_ids), None)
        else:
            hidden = decoders.states(self.model, input_ids, block_ids, position_ids)
        with torch.autocast(hidden.device.type, enabled=False):
            states = torch.cat([POOLERS[name](wide(hidden), mask) for name in self.config.pooling], dim=-1)
            for module in self.head:
                states = module(states)
        return states[:, None]


def _module(settings: dict[str, Any]) -> nn.Module:
    kind = settings["kind"]
    return MODULES[kind](**{name: value for name, value in settings.items() if name != "kind"})


MODULES: Final[dict[str, Callable[..., nn.Module]]] = {"dense": Dense, "layer_norm": Normalization}


def _largest(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)


def _mean_of_root(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).sqrt()


def _by_position(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = (mask.cumsum(dim=1) * mask).to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


POOLERS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cls": POOLINGS["first_token"],
    "mean": POOLINGS["mean"],
    "lasttoken": POOLINGS["last_token"],
    "max": _largest,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _by_position,
}
"""By sentence-transformers' names: (rows, sequence, hidden), (rows, sequence) bool -> (rows, hidden)."""
