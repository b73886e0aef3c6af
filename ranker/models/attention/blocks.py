"""Attention under a mask of blocks, with an exchange of [CLS] states between the rows of a group.

Registered with transformers as ``ranker_blocks``; BERT, RoBERTa, ELECTRA and ModernBERT call it by name, decoders while
they are exported.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME: Final = "ranker_blocks"


def star_mask(block_ids: Tensor) -> Tensor:
    """Who sees whom in the ``shared_prompt`` layout: (batch, 1, sequence, sequence), True may attend.

    ``block_ids`` (batch, sequence) is 0 for the prompt, 1.. for candidates, -1 for padding. A token sees its own block
    and block 0; block 0 sees everything. Padding is never seen.
    """
    query, key = block_ids[:, :, None], block_ids[:, None, :]
    return ((key >= 0) & ((query <= 0) | (key == 0) | (query == key)))[:, None]


def row_mask(block_ids: Tensor) -> Tensor:
    """Full attention within a row, padding never seen: (batch, 1, sequence, sequence)."""
    length = block_ids.shape[1]
    return (block_ids >= 0)[:, None, None, :].expand(-1, -1, length, -1)


def branch_mask(block_ids: Tensor, position_ids: Tensor, window: int | None = None) -> Tensor:
    """Who sees whom where a decoder's answers branch off one prompt: (batch, 1, sequence, sequence), True may attend.

    Block 0 is the prompt, blocks 1.. are answers whose positions all go on from the prompt's. A token sees the prompt
    and its own block, up to itself; with ``window`` only positions less than that behind it. Padding sees everything,
    so that no row of attention is empty.
    """
    query, key = block_ids[:, :, None], block_ids[:, None, :]
    behind = position_ids[:, :, None] - position_ids[:, None, :]
    seen = (key >= 0) & ((key == 0) | (query == key)) & (behind >= 0)
    near = seen if window is None else seen & (behind < window)
    return (near | (query < 0))[:, None]


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

    Keys and values may have fewer heads, each for several of the query's (arXiv 2305.13245).
    Returns (rows, sequence, heads, width), as transformers expects of an attention function.
    """
    if query.shape[1] != key.shape[1]:
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    if members is not None:
        key = torch.cat([key, exchanged(key[:, :, :1], members)], dim=2)
        value = torch.cat([value, exchanged(value[:, :, :1], members)], dim=2)
        attention_mask = torch.cat([attention_mask, present(members, attention_mask)], dim=3)
    scaling = scaling or query.shape[-1] ** -0.5
    if torch.onnx.is_in_onnx_export():
        return fused(query, key, value, bias_of(attention_mask, query.dtype), scaling), None
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


def bias_of(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where a key may be seen, the lowest number elsewhere."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def present(members: Tensor, like: Tensor) -> Tensor:
    """Which of a row's exchanged keys there are, for every query of the mask ``like``."""
    return (members >= 0)[:, None, None, :].expand(-1, -1, like.shape[2], -1)


AttentionInterface.register(NAME, block_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
