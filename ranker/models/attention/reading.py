"""Which tokens of a row a head reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ranker.models.attention.padding_free import Segments


@dataclass(frozen=True, slots=True)
class Reading:
    """Which tokens of each row the head reads.

    ``places`` (rows, count) are their positions in the row, None is the first one. ``segments`` are those of the
    queries, where rows lie one after the other without padding; ``places`` is then (1, all) in that one sequence.
    """

    places: Tensor | None = None
    segments: Segments | None = None

    def of(self, states: Tensor, dim: int = 1) -> Tensor:
        """The read tokens of states whose dimension ``dim`` is the sequence."""
        if self.places is None:
            return states.narrow(dim, 0, 1)
        shape = [1] * states.dim()
        shape[0], shape[dim] = self.places.shape
        sizes = list(states.shape)
        sizes[dim] = self.places.shape[1]
        return states.gather(dim, self.places.view(shape).expand(sizes))

    def without_padding(self, segments: Segments) -> Reading:
        """The same of rows that lie one after the other."""
        starts = segments.starts[:-1].long()
        places = starts[:, None] if self.places is None else starts[:, None] + self.places
        ends = torch.arange(len(starts) + 1, dtype=torch.int32, device=starts.device) * places.shape[1]
        return Reading(places.reshape(1, -1), replace(segments, starts=ends, longest=places.shape[1]))
