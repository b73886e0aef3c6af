"""Decoders read at the last token of each answer, alone or several answers after one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ranker.models import backbones
from ranker.models.attention.blocks import NAME, bias_of, branch_mask
from ranker.models.heads import POOLINGS, wide

WITHOUT_FUSION: Final = ("gemma2", "gptj")
"""Families whose attention has terms that the runtime's operator has not (capped logits)."""


def states(backbone: Any, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Hidden states (rows, sequence, hidden) of rows that hold one answer each."""
    if backbones.reads_packed(backbone):
        return backbones.packed(backbone, input_ids, block_ids, position_ids, None)
    return _hidden(backbone, input_ids, position_ids, (block_ids >= 0).long())


def last_token(model: Any, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Logits (rows, outputs) of rows that hold one answer each."""
    hidden = states(model.base_model, input_ids, block_ids, position_ids)
    return _score(model, POOLINGS["last_token"](hidden, block_ids >= 0))


def values(model: Any, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
    """The head on every token: (rows, sequence, outputs)."""
    return _score(model, states(model.base_model, input_ids, block_ids, position_ids))


def branches(model: Any, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor, readout: Tensor) -> Tensor:
    """Logits (rows, answers, outputs) at the positions ``readout`` (rows, answers) of rows that share their prompt."""
    masks = _masks(model.base_model.config, block_ids, position_ids)
    hidden = _hidden(model.base_model, input_ids, position_ids, masks)
    ends = hidden.gather(1, readout.clamp(min=0)[:, :, None].expand(-1, -1, hidden.shape[-1]))
    return _score(model, ends.flatten(0, 1)).view(*readout.shape, -1)


@contextmanager
def exportable(backbone: PreTrainedModel) -> Iterator[None]:
    """Attention that becomes one node of an exported graph, where the family allows it."""
    before = backbone.config._attn_implementation
    if backbone.config.model_type not in WITHOUT_FUSION:
        backbone.set_attn_implementation(NAME)
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


def _score(model: Any, hidden: Tensor) -> Tensor:
    """The head in fp32: (..., hidden) to (..., outputs)."""
    with torch.autocast(hidden.device.type, enabled=False):
        scores: Tensor = model.score(wide(hidden))
        return scores


def _hidden(backbone: Any, input_ids: Tensor, position_ids: Tensor, mask: Any) -> Tensor:
    out: Tensor = backbone(
        input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    return out


def _masks(config: PretrainedConfig, block_ids: Tensor, position_ids: Tensor) -> Any:
    """What the family takes as a mask: one, or one for each kind of its layers."""

    def mask(window: int | None) -> Tensor:
        allowed = branch_mask(block_ids, position_ids, window)
        return bias_of(allowed, torch.float32) if config._attn_implementation == "eager" else allowed

    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if config.model_type == "mistral" or not kinds:
        return mask(window if config.model_type == "mistral" else None)
    return {kind: mask(window if kind == "sliding_attention" else None) for kind in kinds}
