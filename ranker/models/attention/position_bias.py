"""MPNet's attention (arXiv 2004.09297): a learned bias per distance, added to the scores of every layer.

The library counts every row's positions from its first token. Here they are given, so that rows may hold blocks whose
positions all go on from the prompt's, and rows of a group may exchange their [CLS] states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ranker.models.attention.blocks import bias_of, exchanged, fused, present
from ranker.models.attention.reading import Reading


def position_bias(encoder: Any, position_ids: Tensor, mask: Tensor, members: Tensor | None) -> Tensor:
    """What is added to the scores of all layers: (rows, heads, sequence, keys).

    Args:
        encoder: an ``MPNetEncoder``.
        position_ids: (rows, sequence).
        mask: who may attend, (rows, 1, sequence, sequence) bool.
        members: (rows, others) row numbers whose [CLS] states are further keys; -1 absent.
    """
    distance = position_ids[:, None, :] - position_ids[:, :, None]
    buckets = encoder.relative_position_bucket(distance, num_buckets=encoder.config.relative_attention_num_buckets)
    distances: Tensor = encoder.relative_attention_bias(buckets).permute(0, 3, 1, 2)
    bias = distances + bias_of(mask, distances.dtype)
    if members is None:
        return bias
    # Every row's [CLS] has the same position, so those of other rows are as far away as its own.
    others = distances[..., :1] + bias_of(present(members, mask), distances.dtype)
    return torch.cat([bias, others], dim=3)


def layer_output(
    layer: Any, hidden: Tensor, bias: Tensor, members: Tensor | None, reading: Reading | None = None
) -> Tensor:
    """One ``MPNetLayer``: (rows, sequence, hidden) to the same, under a bias of ``position_bias``.

    With ``reading`` to (rows, read tokens, hidden).
    """
    attention = layer.attention
    module = attention.attn
    queries = hidden if reading is None else reading.of(hidden)
    bias = bias if reading is None else reading.of(bias, 2)
    query, key, value = (
        linear(states).unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)
        for linear, states in ((module.q, queries), (module.k, hidden), (module.v, hidden))
    )
    if members is not None:
        key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
        value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
    if torch.onnx.is_in_onnx_export():
        mixed = fused(query, key, value, bias, module.attention_head_size**-0.5)
    else:
        dropout = module.dropout.p if module.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout)
        mixed = mixed.transpose(1, 2)
    states = attention.LayerNorm(attention.dropout(module.o(mixed.flatten(2))) + queries)
    out: Tensor = layer.output(layer.intermediate(states), states)
    return out
