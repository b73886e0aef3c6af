"""DeBERTa's attention with relative positions of every row's own, and the exchange of [CLS] states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from ranker.models.attention.blocks import bias_of, exchanged, fused, present


@dataclass(frozen=True, slots=True)
class Relations:
    """What DeBERTa's attention needs beyond the mask, handed through transformers' ``relative_pos`` argument.

    Computed once for all layers, the exchanged keys included: ``to_position`` (rows, heads, sequence, keys) and
    ``from_position`` (rows, heads, keys, sequence) say which of ``span`` relative positions before and after are read
    between a query and a key; a text of n tokens has at most n of each. ``members`` as in ``block_attention``.
    """

    to_position: Tensor
    from_position: Tensor
    span: int
    members: Tensor | None


def relations(encoder: DebertaV2Encoder, position_ids: Tensor, members: Tensor | None) -> Relations:
    """Bucketed relative positions (rows, sequence, keys) from the positions within blocks; a [CLS] is at position 0."""
    keys = position_ids
    if members is not None:
        keys = torch.cat([keys, torch.zeros_like(members)], dim=1)
    distance = position_ids[:, :, None] - keys[:, None, :]
    if encoder.position_buckets > 0:
        distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions)
    attention = encoder.layer[0].attention.self
    span = attention.pos_ebd_size
    # Buckets of a width below two can number more than the tokens they hold. Exported graphs fold the projections of
    # all positions into constants, so they gain nothing by reading fewer.
    if encoder.max_relative_positions >= 2 * encoder.position_buckets and not torch.onnx.is_in_onnx_export():
        span = min(span, keys.shape[1])
    index = (distance.long() + span).clamp(0, 2 * span - 1)[:, None].expand(-1, attention.num_attention_heads, -1, -1)
    return Relations(index, index.transpose(2, 3), span, members)


class BlockDisentangledAttention(DisentangledSelfAttention):  # type: ignore[misc]
    """DeBERTa's disentangled attention (arXiv 2006.03654) with its own relative positions for every row.

    Same parameters as the parent, so weights load unchanged. Position projections are computed once per layer and
    broadcast over the batch instead of being repeated per row.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Relations | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend (rows, sequence, hidden) -> (rows, sequence, hidden); ``relative_pos`` carries ``Relations``."""
        query, key, value = (
            self._heads(projection(hidden_states)) for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        members = None if relative_pos is None else relative_pos.members
        if members is not None:
            key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
            value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
            attention_mask = torch.cat([attention_mask.bool(), present(members, attention_mask)], dim=3)
        factor = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scale = float(query.shape[-1] * factor) ** -0.5
        bias = query.new_zeros(())
        if self.relative_attention and relative_pos is not None and rel_embeddings is not None:
            bias = self._bias(query, key, relative_pos, rel_embeddings) * scale
        if torch.onnx.is_in_onnx_export():
            return fused(query, key, value, bias + bias_of(attention_mask.bool(), query.dtype), scale).flatten(2), None
        scores = query @ (key * scale).transpose(-1, -2) + bias
        scores = scores.masked_fill(~attention_mask.bool(), torch.finfo(scores.dtype).min)
        context = self.dropout(scores.softmax(dim=-1)) @ value
        return context.transpose(1, 2).flatten(2), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:-1], self.num_attention_heads, -1).transpose(-3, -2)

    def _bias(self, query: Tensor, key: Tensor, relations: Relations, rel_embeddings: Tensor) -> Tensor:
        """What relative positions add to the scores, by content and position: (rows, heads, sequence, keys)."""
        middle, span = self.pos_ebd_size, relations.span
        embeddings = self.pos_dropout(rel_embeddings[middle - span : middle + span])
        bias = query.new_zeros(())
        if "c2p" in self.pos_att_type:
            projection = self.key_proj if self.share_att_key else self.pos_key_proj
            scores = query @ self._heads(projection(embeddings)).transpose(-1, -2)
            bias = bias + scores.gather(-1, relations.to_position)
        if "p2c" in self.pos_att_type:
            projection = self.query_proj if self.share_att_key else self.pos_query_proj
            scores = key @ self._heads(projection(embeddings)).transpose(-1, -2)
            bias = bias + scores.gather(-1, relations.from_position).transpose(-1, -2)
        return bias
