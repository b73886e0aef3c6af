"""Quantiles of any number of scores in fixed memory: one count for all fp32 numbers with the same first 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

BUCKETS: Final = 1 << 16
COARSE: Final = 8
"""Buckets per count of a summary."""


class Sketch:
    """Counts of scores, mergeable; a quantile is exact to one part in 256 of its own size."""

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, np.int64)

    def add(self, scores: Sequence[float] | NDArray[np.float32]) -> None:
        """Count finite scores."""
        values = np.asarray(scores, np.float32)
        np.add.at(self.counts, _bucket(values[np.isfinite(values)]), 1)

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch."""
        self.counts += other.counts

    @property
    def n(self) -> int:
        """Number of counted scores."""
        return int(self.counts.sum())

    def coarse(self) -> dict[str, int]:
        """Counts of numbers with the same first 13 bits (6 % apart), by the lowest number of each."""
        counts = self.counts.reshape(-1, COARSE).sum(axis=1)
        return {f"{_lowest(int(bucket) * COARSE):.6g}": int(counts[bucket]) for bucket in np.nonzero(counts)[0]}

    def threshold(self, share: float) -> float:
        """The lowest of the best ``share`` of scores; scores that tie with it on 16 bits are included.

        Raises:
            ValueError: nothing was counted, or the share is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"expected a share in (0, 1], got {share}")
        if not self.n:
            raise ValueError("expected at least one score")
        above = np.cumsum(self.counts[::-1])
        place = int(np.searchsorted(above, share * self.n))
        return _lowest(BUCKETS - 1 - place)


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
