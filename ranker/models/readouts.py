"""The torch side of the layouts of pairwise encoders: who attends to whom, and where the head reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ranker.layouts import Layout
from ranker.layouts.ordered_pair import OrderedPair
from ranker.layouts.set_encoder import SetEncoder
from ranker.layouts.shared_prompt import SharedPrompt
from ranker.models.attention.blocks import row_mask, star_mask
from ranker.models.attention.reading import Reading


@dataclass(frozen=True, slots=True)
class Readout:
    """How a model reads the rows of a layout."""

    mask: Callable[[Tensor], Tensor]
    """``block_ids`` (rows, sequence) -> who may attend (rows, 1, sequence, sequence) bool."""

    reading: Callable[[Tensor | None], Reading]
    """``readout`` -> the tokens of each row whose states are read."""

    features: Callable[[Tensor], Tensor]
    """Their states (rows, read tokens, hidden) -> what the head reads (rows, candidates, width)."""

    states: int
    """``width`` in hidden sizes."""

    markers: int = 0
    """Marker ids that the layout adds after the backbone's vocabulary."""

    first_markers: Callable[[Tensor, int, float], Tensor] = lambda table, cls_id, std: table[:0]
    """Embedding table, id of [CLS] and the backbone's initial deviation -> the markers' rows before training."""


def first_token(readout: Tensor | None) -> Reading:
    """[CLS] of a row that holds one candidate."""
    return Reading()


def markers(readout: Tensor | None) -> Reading:
    """The source marker and the candidate markers; the first token in the place of absent ones."""
    if readout is None:
        raise ValueError("expected 'readout' (rows, 1 + candidates), got none")
    return Reading(readout.clamp(min=0))


def as_they_are(states: Tensor) -> Tensor:
    """One state for each candidate."""
    return states


def source_and_candidates(states: Tensor) -> Tensor:
    """The state of the source marker beside that of each candidate marker."""
    source = states[:, :1].expand(-1, states.shape[1] - 1, -1)
    return torch.cat([source, states[:, 1:]], dim=-1)


def _near_cls(count: int) -> Callable[[Tensor, int, float], Tensor]:
    """Markers that take the place of [CLS] start at its embedding."""

    def rows(table: Tensor, cls_id: int, std: float) -> Tensor:
        return table[cls_id] + 0.01 * table[cls_id].std() * torch.randn(count, table.shape[1])

    return rows


def _random(count: int) -> Callable[[Tensor, int, float], Tensor]:
    """Markers that tell candidates apart are drawn at random, as LLM-Blender's are: alike, both would be read alike."""

    def rows(table: Tensor, cls_id: int, std: float) -> Tensor:
        return std * torch.randn(count, table.shape[1])

    return rows


READOUTS: Final[dict[type[Layout], Readout]] = {
    SetEncoder: Readout(row_mask, first_token, as_they_are, states=1),
    SharedPrompt: Readout(star_mask, markers, source_and_candidates, states=2, markers=2, first_markers=_near_cls(2)),
    OrderedPair: Readout(row_mask, markers, source_and_candidates, states=2, markers=3, first_markers=_random(3)),
}
"""By layout class."""
