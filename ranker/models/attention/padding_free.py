"""Attention of rows that lie one after the other without padding; registered as ``ranker_padding_free``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ranker.models.attention.blocks import block_attention

PADDING_FREE: Final = "ranker_padding_free"


@dataclass(frozen=True, slots=True)
class Segments:
    """Rows that lie one after the other in a single sequence without padding.

    ``places`` (tokens,) say where they lie in the padded rows, one row after the other. ``starts`` (rows + 1,) are the
    rows' cumulative lengths as int32, ``longest`` the longest. Where rows see others' [CLS], ``keys`` (keys,) are the
    places of what each row sees, row after row, with cumulative lengths ``key_starts``.
    """

    places: Tensor
    starts: Tensor
    longest: int
    keys: Tensor | None
    key_starts: Tensor
    most_keys: int

    @classmethod
    def of(cls, present: Tensor, members: Tensor | None) -> Segments:
        """From the mask (rows, sequence) of what is not padding, and the other rows of each row's group.

        Both are read by the host: on a GPU that waits, see ``segments_known``.
        """
        mask = present.cpu().numpy()
        places, lengths = np.flatnonzero(mask), mask.sum(axis=1)
        starts = np.concatenate([[0], lengths.cumsum()])
        if members is None:
            return cls._from_host(present.device, places, starts, None, starts)
        others = members.cpu().numpy()
        first = starts[:-1]
        rows = [np.arange(a, b) for a, b in pairwise(starts)]
        seen = [np.concatenate([row, first[group[group >= 0]]]) for row, group in zip(rows, others, strict=True)]
        key_starts = np.concatenate([[0], np.cumsum([len(keys) for keys in seen])])
        return cls._from_host(present.device, places, starts, np.concatenate(seen), key_starts)

    @classmethod
    def _from_host(
        cls,
        device: torch.device,
        places: NDArray[np.int64],
        starts: NDArray[np.int64],
        keys: NDArray[np.int64] | None,
        key_starts: NDArray[np.int64],
    ) -> Segments:
        longest, most_keys = (int(np.diff(ends).max()) for ends in (starts, key_starts))
        ends = [torch.from_numpy(counts.astype(np.int32)) for counts in (starts, key_starts)]
        seen = None if keys is None else torch.from_numpy(keys)
        segments = cls(torch.from_numpy(places), ends[0], longest, seen, ends[1], most_keys)
        return segments if device.type == "cpu" else segments.on(device)

    def split_queries(self, states: Tensor, dim: int) -> Sequence[Tensor]:
        """What all rows' queries have along ``dim``, cut into rows.

        The gradient of a split is one array, that of a slice is one of the whole length for every row.
        """
        return torch.split(states, self.starts.diff().tolist(), dim)

    def split_keys(self, states: Tensor, dim: int) -> Sequence[Tensor]:
        """What all rows' keys have along ``dim``, cut into rows."""
        return torch.split(states, self.key_starts.diff().tolist(), dim)

    def on(self, device: torch.device) -> Segments:
        """The same on another device; the host does not wait for the copies."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("places", "starts", "keys", "key_starts")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


_known: ContextVar[Segments | None] = ContextVar("_known", default=None)


@contextmanager
def segments_known(arrays: Mapping[str, Tensor], device: torch.device) -> Iterator[None]:
    """Within, rows are cut by what the host knows of them: a GPU that is asked for their lengths would make it wait.

    Args:
        arrays: of the pass, in the host's memory.
        device: where the pass is computed.
    """
    token = _known.set(Segments.of(arrays["block_ids"] >= 0, arrays.get("members")).on(device))
    try:
        yield
    finally:
        _known.reset(token)


def segments_of(present: Tensor, members: Tensor | None) -> Segments:
    """The segments of a pass: known, or read from its arrays."""
    return _known.get() or Segments.of(present, members)


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
        return block_attention(module, query, key, value, attention_mask, scaling, **others)
    causal = bool(getattr(module, "is_causal", False))
    reach = -1 if sliding_window is None else sliding_window - 1
    window = (reach, 0) if causal else (reach, reach)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if segments.keys is not None:
        k, v = k[segments.keys], v[segments.keys]
    q, k = q.to(v.dtype), k.to(v.dtype)  # rotary positions leave them in fp32 under autocast
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        return kernel_attention(q, k, v, segments, scaling, window)[None], None
    rows = []
    parts = (segments.split_queries(q, 0), segments.split_keys(k, 0), segments.split_keys(v, 0))
    for one, two, three in zip(*parts, strict=True):
        row = nn.functional.scaled_dot_product_attention(
            one.transpose(0, 1)[None],
            two.transpose(0, 1)[None],
            three.transpose(0, 1)[None],
            attn_mask=_near(len(one), len(two), window, q.device),
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        rows.append(row[0].transpose(0, 1))
    return torch.cat(rows)[None], None


def kernel_attention(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, scaling: float | None, window: tuple[int, int]
) -> Tensor:
    """Torch's variable-length attention of (tokens, heads, width); heads are repeated where it does not share them.

    torch 2.11's takes as many heads of keys as of queries, later ones have ``enable_gqa``.
    """
    options: dict[str, Any] = {"scale": scaling, "window_size": window}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in kernel_options():
            options["enable_gqa"] = True
        else:
            k, v = (states.repeat_interleave(q.shape[1] // states.shape[1], dim=1) for states in (k, v))
    ends = (segments.starts, segments.key_starts, segments.longest, segments.most_keys)
    return torch.as_tensor(varlen_attn(q, k, v, *ends, **options))


def kernel_options() -> frozenset[str]:
    """The arguments that the installed torch's variable-length attention takes."""
    return frozenset(inspect.signature(varlen_attn).parameters)


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
