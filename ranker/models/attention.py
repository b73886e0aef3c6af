"""Attention under a block mask, with an exchange of [CLS] states between the rows of a group.

Registered with transformers as ``ranker_blocks``; BERT, RoBERTa, ELECTRA and ModernBERT call it by name. DeBERTa has an
attention of its own, which ``BlockDisentangledAttention`` extends by per-row relative positions and the exchange.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

NAME: Final = "ranker_blocks"
PADDING_FREE: Final = "ranker_padding_free"


def star_mask(block_ids: Tensor) -> Tensor:
    """Who sees whom in the ``hub`` layout: (batch, 1, sequence, sequence), True may attend.

    ``block_ids`` (batch, sequence) is 0 for the prompt, 1.. for candidates, -1 for padding. A token sees its own block
    and block 0; block 0 sees everything. Padding is never seen.
    """
    query, key = block_ids[:, :, None], block_ids[:, None, :]
    return ((key >= 0) & ((query <= 0) | (key == 0) | (query == key)))[:, None]


def row_mask(block_ids: Tensor) -> Tensor:
    """Full attention within a row, padding never seen: (batch, 1, sequence, sequence)."""
    length = block_ids.shape[1]
    return (block_ids >= 0)[:, None, None, :].expand(-1, -1, length, -1)


def exchanged(first: Tensor, members: Tensor) -> Tensor:
    """The first-token states of each row's group: (rows, heads, others, width) from (rows, heads, 1, width).

    ``members`` (rows, others) holds row numbers, -1 absent (gathers row 0, to be masked).
    """
    return first[:, :, 0][members.clamp(min=0)].transpose(1, 2)


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    members: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention (rows, heads, sequence, width); with ``members`` also over the group's [CLS] states.

    Returns (rows, sequence, heads, width), as transformers expects of an attention function.
    """
    if members is not None:
        key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
        value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
        attention_mask = torch.cat([attention_mask, _present(members, attention_mask)], dim=3)
    scaling = scaling or query.shape[-1] ** -0.5
    if torch.onnx.is_in_onnx_export():
        return fused(query, key, value, _bias_of(attention_mask, query.dtype), scaling), None
    if query.requires_grad and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # The CPU's fused backward takes up to seven times as long as these matrix products (27 rows of 75 tokens).
        scores = (query * scaling) @ key.transpose(-1, -2)
        weights = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
        out = nn.functional.dropout(weights, dropout) @ value
    else:
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
    return out.transpose(1, 2).contiguous(), None


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """The runtime's ``MultiHeadAttention`` in an exported graph, in the place of products, softmax and transpositions.

    Arguments are (rows, heads, sequence or keys, width), ``bias`` (rows, 1 or heads, sequence, keys) is added to the
    scores; returns (rows, sequence, heads, width).
    """
    rows, heads, length, width = query.shape
    q, k, v = (states.transpose(1, 2).flatten(2) for states in (query, key, value))
    out: Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (q, k, v, None, None, bias),
        {"num_heads": heads, "scale": scaling},
        dtype=query.dtype,
        shape=q.shape,
        version=1,
    )
    return out.view(rows, length, heads, width)


def _bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a key may be seen, the lowest number elsewhere."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _present(members: Tensor, like: Tensor) -> Tensor:
    return (members >= 0)[:, None, None, :].expand(-1, -1, like.shape[2], -1)


AttentionInterface.register(NAME, block_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@dataclass(frozen=True, slots=True)
class Segments:
    """Rows that lie one after the other in a single sequence without padding.

    ``starts`` (rows + 1,) are the rows' cumulative lengths as int32, ``longest`` the longest. Where rows see others'
    [CLS], ``keys`` (keys,) are the places of what each row sees, row after row, with cumulative lengths ``key_starts``.
    """

    starts: Tensor
    longest: int
    keys: Tensor | None
    key_starts: Tensor
    most_keys: int

    @classmethod
    def of(cls, present: Tensor, members: Tensor | None) -> Segments:
        """From the mask (rows, sequence) of what is not padding, and the other rows of each row's group."""
        lengths = present.sum(dim=1)
        starts = _cumulative(lengths)
        longest = int(lengths.max())
        if members is None:
            return cls(starts, longest, None, starts, longest)
        first = starts[:-1].long()
        own = [torch.arange(int(a), int(b), device=present.device) for a, b in zip(starts, starts[1:], strict=False)]
        seen = [torch.cat([place, first[row[row >= 0]]]) for place, row in zip(own, members, strict=True)]
        counts = torch.tensor([len(places) for places in seen], device=present.device)
        return cls(starts, longest, torch.cat(seen), _cumulative(counts), int(counts.max()))


def _cumulative(lengths: Tensor) -> Tensor:
    return nn.functional.pad(lengths.cumsum(0), (1, 0)).int()


def padding_free_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention within the rows of ``segments``; (1, heads, tokens, width) to (1, tokens, heads, width).

    In half precision on a GPU by torch's variable-length kernel, elsewhere row by row. Without ``segments`` it is
    ``block_attention``, so that the same model also reads padded rows.
    """
    if segments is None:
        if attention_mask is None:
            raise ValueError("padded rows need a mask")
        grouped = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(grouped, dim=1) if grouped > 1 else states for states in (key, value))
        return block_attention(module, query, key, value, attention_mask, scaling, **others)
    causal = bool(getattr(module, "is_causal", False))
    reach = -1 if sliding_window is None else sliding_window - 1
    window = (reach, 0) if causal else (reach, reach)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if segments.keys is not None:
        k, v = k[segments.keys], v[segments.keys]
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        out = varlen_attn(
            q, k, v, segments.starts, segments.key_starts, segments.longest, segments.most_keys,
            scale=scaling, window_size=window, enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        return torch.as_tensor(out)[None], None
    rows = []
    ends = zip(segments.starts.tolist(), segments.key_starts.tolist(), strict=True)
    for (a, c), (b, d) in pairwise(ends):
        near = _near(b - a, d - c, window, q.device)
        one, two, three = (states[i:j].transpose(0, 1)[None] for states, i, j in ((q, a, b), (k, c, d), (v, c, d)))
        row = nn.functional.scaled_dot_product_attention(
            one, two, three, attn_mask=near, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        rows.append(row[0].transpose(0, 1))
    return torch.cat(rows)[None], None


def _near(queries: int, keys: int, window: tuple[int, int], device: torch.device) -> Tensor | None:
    """Which keys lie in the window (before, after) of each query; None where all do."""
    if window == (-1, -1):
        return None
    distance = torch.arange(keys, device=device)[None] - torch.arange(queries, device=device)[:, None]
    before = distance >= -window[0] if window[0] >= 0 else torch.ones_like(distance, dtype=torch.bool)
    return before & (distance <= window[1]) if window[1] >= 0 else before


def _no_mask_or_sdpa_s(*args: Any, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Rows without padding need no mask; padded ones always get one, which causal models could else leave out."""
    if attention_mask is None:
        return None
    mask: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **options | {"allow_is_causal_skip": False})
    return mask


AttentionInterface.register(PADDING_FREE, padding_free_attention)
AttentionMaskInterface.register(PADDING_FREE, _no_mask_or_sdpa_s)


@dataclass(frozen=True, slots=True)
class Relations:
    """What DeBERTa's attention needs beyond the mask, handed through transformers' ``relative_pos`` argument.

    ``buckets`` (rows, sequence, keys) are bucketed relative positions, the exchanged keys included; ``members`` as in
    ``block_attention``.
    """

    buckets: Tensor
    members: Tensor | None


def relations(encoder: DebertaV2Encoder, position_ids: Tensor, members: Tensor | None) -> Relations:
    """Bucketed relative positions (rows, sequence, keys) from the positions within blocks; a [CLS] is at position 0."""
    keys = position_ids
    if members is not None:
        keys = torch.cat([keys, torch.zeros_like(members)], dim=1)
    distance = position_ids[:, :, None] - keys[:, None, :]
    if encoder.position_buckets > 0:
        distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions)
    return Relations(distance.long(), members)


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
            attention_mask = torch.cat([attention_mask.bool(), _present(members, attention_mask)], dim=3)
        factor = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scale = float(query.shape[-1] * factor) ** -0.5
        bias = query.new_zeros(())
        if self.relative_attention and relative_pos is not None and rel_embeddings is not None:
            bias = self._bias(query, key, relative_pos.buckets, rel_embeddings) * scale
        if torch.onnx.is_in_onnx_export():
            return fused(query, key, value, bias + _bias_of(attention_mask.bool(), query.dtype), scale).flatten(2), None
        scores = query @ (key * scale).transpose(-1, -2) + bias
        scores = scores.masked_fill(~attention_mask.bool(), torch.finfo(scores.dtype).min)
        context = self.dropout(scores.softmax(dim=-1)) @ value
        return context.transpose(1, 2).flatten(2), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:-1], self.num_attention_heads, -1).transpose(-3, -2)

    def _bias(self, query: Tensor, key: Tensor, buckets: Tensor, rel_embeddings: Tensor) -> Tensor:
        span = self.pos_ebd_size
        embeddings = self.pos_dropout(rel_embeddings[: 2 * span])
        bias = query.new_zeros(())
        shape = (-1, query.shape[1], -1, -1)
        if "c2p" in self.pos_att_type:
            projection = self.key_proj if self.share_att_key else self.pos_key_proj
            scores = query @ self._heads(projection(embeddings)).transpose(-1, -2)
            index = (buckets + span).clamp(0, 2 * span - 1)[:, None].expand(shape)
            bias = bias + scores.gather(-1, index)
        if "p2c" in self.pos_att_type:
            projection = self.query_proj if self.share_att_key else self.pos_query_proj
            scores = key @ self._heads(projection(embeddings)).transpose(-1, -2)
            index = (buckets + span).clamp(0, 2 * span - 1).transpose(1, 2)[:, None].expand(shape)
            bias = bias + scores.gather(-1, index).transpose(-1, -2)
        return bias
