"""Counts of any number of scores in fixed memory: one for all fp32 numbers with the same first 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

BUCKETS: Final = 1 << 16
COARSE: Final = 8
"""Buckets per count of a summary."""


class Sketch:
    """Counts of scores."""

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, np.int64)

    def add(self, scores: Sequence[float] | NDArray[np.float32]) -> None:
        """Count finite scores."""
        values = np.asarray(scores, np.float32)
        np.add.at(self.counts, _bucket(values[np.isfinite(values)]), 1)

    def coarse(self) -> dict[str, int]:
        """Counts of numbers with the same first 13 bits (6 % apart), by the lowest number of each."""
        counts = self.counts.reshape(-1, COARSE).sum(axis=1)
        return {f"{_lowest(int(bucket) * COARSE):.6g}": int(counts[bucket]) for bucket in np.nonzero(counts)[0]}


def _bucket(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """The first 16 bits in the order of the numbers: those of negative numbers are inverted."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 is 0.0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> 16).astype(np.intp)


def _lowest(bucket: int) -> float:
    """The lowest number of a bucket."""
    ordered = np.array([bucket << 16], np.uint32)
    bits = ordered & np.uint32(0x7FFFFFFF) if bucket >> 15 else ~ordered
    return float(bits.view(np.float32)[0])
