"""DeBERTa's attention with relative positions of every row's own, and the exchange of [CLS] states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from ranker.models.attention.blocks import bias_of, exchanged, fused, present
from ranker.models.attention.padding_free import Segments
from ranker.models.attention.reading import Reading


@dataclass(frozen=True, slots=True)
class RowRelations:
    """Which relative positions are read in rows that lie one after the other without padding.

    Of each row ``to_position`` (1, heads, queries, keys) and ``from_position`` (1, heads, keys, queries), as in
    ``Relations``; ``segments`` say how many queries and keys the rows have.
    """

    to_position: list[Tensor]
    from_position: list[Tensor]
    segments: Segments


@dataclass(frozen=True, slots=True)
class Relations:
    """What DeBERTa's attention needs beyond the mask, handed through transformers' ``relative_pos`` argument.

    Computed once for all layers, the exchanged keys included: ``to_position`` (rows, heads, sequence, keys) and
    ``from_position`` (rows, heads, keys, sequence) say which of ``span`` relative positions before and after are read
    between a query and a key; a text of n tokens has at most n of each. ``members`` as in ``block_attention``,
    ``reading`` says for which tokens the last layer is computed. Without padding ``rows`` has the positions, and
    ``read_rows`` those of the tokens that are read.
    """

    to_position: Tensor | None
    from_position: Tensor | None
    span: int
    members: Tensor | None = None
    reading: Reading | None = None
    rows: RowRelations | None = None
    read_rows: RowRelations | None = None

    def of_read_tokens(self, reading: Reading) -> Relations:
        """The same for the queries of the last layer."""
        if self.to_position is None or self.from_position is None:
            return replace(self, rows=self.read_rows)
        to_position, from_position = reading.of(self.to_position, 2), reading.of(self.from_position, 3)
        return replace(self, to_position=to_position, from_position=from_position)


def relations(encoder: DebertaV2Encoder, position_ids: Tensor, members: Tensor | None) -> Relations:
    """Bucketed relative positions (rows, sequence, keys) from the positions within blocks; a [CLS] is at position 0."""
    keys = position_ids
    if members is not None:
        keys = torch.cat([keys, torch.zeros_like(members)], dim=1)
    span = _span(encoder, keys.shape[1])
    index = _between(encoder, position_ids, keys, span)
    return Relations(index, index.transpose(2, 3), span, members)


def relations_without_padding(
    encoder: DebertaV2Encoder, position_ids: Tensor, segments: Segments, reading: Reading | None
) -> Relations:
    """The same of rows that lie one after the other, with positions (1, tokens)."""
    span = _span(encoder, segments.most_keys)
    keys = position_ids if segments.keys is None else position_ids[:, segments.keys]

    def rows(queries: Tensor, segments: Segments) -> RowRelations:
        parts = zip(segments.split_queries(queries, 1), segments.split_keys(keys, 1), strict=True)
        index = [_between(encoder, one, two, span) for one, two in parts]
        return RowRelations(index, [row.transpose(2, 3) for row in index], segments)

    read = None
    if reading is not None and reading.segments is not None:
        read = rows(reading.of(position_ids), reading.segments)
    return Relations(None, None, span, reading=reading, rows=rows(position_ids, segments), read_rows=read)


def _span(encoder: DebertaV2Encoder, most_keys: int) -> int:
    """How many relative positions before and after are read."""
    span: int = encoder.layer[0].attention.self.pos_ebd_size
    # Buckets of a width below two can number more than the tokens they hold. Exported graphs fold the projections of
    # all positions into constants, so they gain nothing by reading fewer.
    if encoder.max_relative_positions >= 2 * encoder.position_buckets and not torch.onnx.is_in_onnx_export():
        span = min(span, most_keys)
    return span


def _between(encoder: DebertaV2Encoder, queries: Tensor, keys: Tensor, span: int) -> Tensor:
    """Which relative position lies between positions (rows, queries) and (rows, keys): (rows, heads, queries, keys)."""
    distance = queries[:, :, None] - keys[:, None, :]
    if encoder.position_buckets > 0:
        distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions)
    heads = encoder.layer[0].attention.self.num_attention_heads
    return (distance.long() + span).clamp(0, 2 * span - 1)[:, None].expand(-1, heads, -1, -1)


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
        """Attend (rows, sequence, hidden) -> (rows, queries, hidden); ``relative_pos`` carries ``Relations``."""
        queries = hidden_states if query_states is None else query_states
        query = self._heads(self.query_proj(queries))
        key, value = (self._heads(projection(hidden_states)) for projection in (self.key_proj, self.value_proj))
        members = None if relative_pos is None else relative_pos.members
        if members is not None:
            key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
            value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
            attention_mask = torch.cat([attention_mask.bool(), present(members, attention_mask)], dim=3)
        factor = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scale = float(query.shape[-1] * factor) ** -0.5
        content = position = to_position = from_position = None
        if self.relative_attention and relative_pos is not None and rel_embeddings is not None:
            content, position = self._projections(relative_pos, rel_embeddings)
            to_position, from_position = relative_pos.to_position, relative_pos.from_position
        dropout = self.dropout.p if self.training else 0.0
        if relative_pos is not None and relative_pos.rows is not None:
            return attend_rows(query, key, value, content, position, relative_pos.rows, scale, dropout), None
        seen = attention_mask.bool()
        if torch.onnx.is_in_onnx_export():
            bias = relative_bias(query, key, content, position, to_position, from_position) * scale
            return fused(query, key, value, bias + bias_of(seen, query.dtype), scale).flatten(2), None
        compute = compiled() if _compiled.get() and query_states is None else attend  # no kernel for a few queries
        context = compute(query, key, value, seen, content, position, to_position, from_position, scale, dropout)
        return context.transpose(1, 2).flatten(2), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:-1], self.num_attention_heads, -1).transpose(-3, -2)

    def _projections(self, relations: Relations, rel_embeddings: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The relative positions as keys and as queries (heads, positions, width), where the model reads them."""
        middle, span = self.pos_ebd_size, relations.span
        embeddings = self.pos_dropout(rel_embeddings[middle - span : middle + span])
        content = position = None
        if "c2p" in self.pos_att_type:
            content = self._heads((self.key_proj if self.share_att_key else self.pos_key_proj)(embeddings))
        if "p2c" in self.pos_att_type:
            position = self._heads((self.query_proj if self.share_att_key else self.pos_query_proj)(embeddings))
        return content, position


def relative_bias(
    query: Tensor,
    key: Tensor,
    content: Tensor | None,
    position: Tensor | None,
    to_position: Tensor | None,
    from_position: Tensor | None,
) -> Tensor:
    """What relative positions add to the scores: (rows, heads, sequence, keys).

    Args:
        query: (rows, heads, sequence, width).
        key: (rows, heads, keys, width).
        content: the positions as keys (heads, positions, width); None where the model does not read them so.
        position: the positions as queries.
        to_position: of ``Relations``.
        from_position: of ``Relations``.
    """
    bias = query.new_zeros(())
    if content is not None and to_position is not None:
        bias = bias + (query @ content.transpose(-1, -2)).gather(-1, to_position)
    if position is not None and from_position is not None:
        bias = bias + (key @ position.transpose(-1, -2)).gather(-1, from_position).transpose(-1, -2)
    return bias


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    content: Tensor | None,
    position: Tensor | None,
    to_position: Tensor | None,
    from_position: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Disentangled attention: (rows, heads, sequence, width).

    ``seen`` (rows, 1 or heads, sequence, keys) says which keys are read; the others as in ``relative_bias``.
    """
    bias = relative_bias(query, key, content, position, to_position, from_position) * scale
    scores = query @ (key * scale).transpose(-1, -2) + bias
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return nn.functional.dropout(scores.softmax(dim=-1), dropout) @ value


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    content: Tensor | None,
    position: Tensor | None,
    rows: RowRelations,
    scale: float,
    dropout: float,
) -> Tensor:
    """``attend`` of rows that lie one after the other: (1, heads, tokens, width) to (1, tokens, hidden).

    The products with positions are those of all rows together.
    """
    segments = rows.segments
    if segments.keys is not None:
        key, value = key[:, :, segments.keys], value[:, :, segments.keys]
    queries, keys = segments.split_queries(query, 2), segments.split_keys(key * scale, 2)
    scores = [one @ two.transpose(-1, -2) for one, two in zip(queries, keys, strict=True)]
    if content is not None:
        parts = segments.split_queries(query @ (content * scale).transpose(-1, -2), 2)
        scores = [s + part.gather(-1, index) for s, part, index in zip(scores, parts, rows.to_position, strict=True)]
    if position is not None:
        parts = segments.split_keys(key @ (position * scale).transpose(-1, -2), 2)
        biases = [part.gather(-1, index) for part, index in zip(parts, rows.from_position, strict=True)]
        scores = [s + bias.transpose(-1, -2) for s, bias in zip(scores, biases, strict=True)]
    weights = [nn.functional.dropout(s.softmax(dim=-1), dropout) for s in scores]
    context = [w @ part for w, part in zip(weights, segments.split_keys(value, 2), strict=True)]
    return torch.cat(context, 2).transpose(1, 2).flatten(2)


@cache
def compiled() -> Callable[..., Tensor]:
    """``attend`` with its sums, gathers and softmax in one kernel (torch.compile), for any shape."""
    return torch.compile(attend, dynamic=True)


_compiled: ContextVar[bool] = ContextVar("_compiled", default=False)


@contextmanager
def compiled_attention() -> Iterator[None]:
    """Within, DeBERTa's attention is ``compiled``."""
    token = _compiled.set(True)
    try:
        yield
    finally:
        _compiled.reset(token)
