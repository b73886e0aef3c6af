"""MPNet's attention (arXiv 2004.09297): a learned bias per distance, added to the scores of every layer.

The library counts every row's positions from its first token. Here they are given, so that rows may hold blocks whose
positions all go on from the prompt's, and rows of a group may exchange their [CLS] states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ranker.models.attention.blocks import bias_of, exchanged, fused, present
from ranker.models.attention.padding_free import Segments
from ranker.models.attention.reading import Reading


def position_bias(encoder: Any, position_ids: Tensor, mask: Tensor, members: Tensor | None) -> Tensor:
    """What is added to the scores of all layers: (rows, heads, sequence, keys).

    Args:
        encoder: an ``MPNetEncoder``.
        position_ids: (rows, sequence).
        mask: who may attend, (rows, 1, sequence, sequence) bool.
        members: (rows, others) row numbers whose [CLS] states are further keys; -1 absent.
    """
    distances = _of_distances(encoder, position_ids, position_ids)
    bias = distances + bias_of(mask, distances.dtype)
    if members is None:
        return bias
    # Every row's [CLS] has the same position, so those of other rows are as far away as its own.
    others = distances[..., :1] + bias_of(present(members, mask), distances.dtype)
    return torch.cat([bias, others], dim=3)


def _of_distances(encoder: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """The learned biases between positions (rows, queries) and (rows, keys): (rows, heads, queries, keys)."""
    distance = keys[:, None, :] - queries[:, :, None]
    buckets = encoder.relative_position_bucket(distance, num_buckets=encoder.config.relative_attention_num_buckets)
    biases: Tensor = encoder.relative_attention_bias(buckets).permute(0, 3, 1, 2)
    return biases


@dataclass(frozen=True, slots=True)
class RowBiases:
    """``position_bias`` of rows that lie one after the other without padding, (1, heads, queries, keys) of each row."""

    biases: list[Tensor]
    segments: Segments

    @classmethod
    def of(cls, encoder: Any, queries: Tensor, position_ids: Tensor, segments: Segments) -> RowBiases:
        """From the positions of the queries and of all tokens, both (1, tokens)."""
        keys = position_ids if segments.keys is None else position_ids[:, segments.keys]
        parts = zip(segments.split_queries(queries, 1), segments.split_keys(keys, 1), strict=True)
        return cls([_of_distances(encoder, one, two) for one, two in parts], segments)


def layer_output(
    layer: Any, hidden: Tensor, bias: Tensor, members: Tensor | None, reading: Reading | None = None
) -> Tensor:
    """One ``MPNetLayer``: (rows, sequence, hidden) to the same, under a bias of ``position_bias``.

    With ``reading`` to (rows, read tokens, hidden).
    """
    module = layer.attention.attn
    queries = hidden if reading is None else reading.of(hidden)
    bias = bias if reading is None else reading.of(bias, 2)
    query, key, value = _projected(module, queries, hidden)
    if members is not None:
        key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
        value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
    if torch.onnx.is_in_onnx_export():
        mixed = fused(query, key, value, bias, module.attention_head_size**-0.5)
    else:
        mixed = _attend(module, query, key, value, bias).transpose(1, 2)
    return _after_attention(layer, mixed, queries)


def layer_output_without_padding(layer: Any, hidden: Tensor, rows: RowBiases, reading: Reading | None = None) -> Tensor:
    """The same of rows that lie one after the other: (1, tokens, hidden) to (1, tokens or read tokens, hidden)."""
    module = layer.attention.attn
    queries = hidden if reading is None else reading.of(hidden)
    query, key, value = _projected(module, queries, hidden)
    segments = rows.segments
    if segments.keys is not None:
        key, value = key[:, :, segments.keys], value[:, :, segments.keys]
    parts = (segments.split_queries(query, 2), segments.split_keys(key, 2), segments.split_keys(value, 2), rows.biases)
    mixed = torch.cat([_attend(module, *part) for part in zip(*parts, strict=True)], dim=2)
    return _after_attention(layer, mixed.transpose(1, 2), queries)


def _projected(module: Any, queries: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: (rows, heads, tokens, width)."""
    query, key, value = (
        linear(states).unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)
        for linear, states in ((module.q, queries), (module.k, hidden), (module.v, hidden))
    )
    return query, key, value


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention under a bias: (rows, heads, queries, width)."""
    dropout = module.dropout.p if module.training else 0.0
    return nn.functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), dropout)


def _after_attention(layer: Any, mixed: Tensor, queries: Tensor) -> Tensor:
    """The rest of a layer, from what attention gave: (rows, queries, heads, width) to (rows, queries, hidden)."""
    attention = layer.attention
    states = attention.LayerNorm(attention.dropout(attention.attn.o(mixed.flatten(2))) + queries)
    out: Tensor = layer.output(layer.intermediate(states), states)
    return out
