"""Fake forward passes: logits that depend on a row's own tokens only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ranker.layouts.layout import Arrays

Forward = Callable[[Arrays], NDArray[np.float32]]


class SumOfTokens:
    """Logits (rows, columns, 1): the sum of a row's ids, weighted by their position; it records its batches.

    Args:
        columns: candidates of a row.
        fails: whether a pass with these arrays raises.
    """

    def __init__(self, columns: int = 1, fails: Callable[[Arrays], bool] = lambda arrays: False) -> None:
        self.columns = columns
        self.fails = fails
        self.batches: list[Arrays] = []

    def __call__(self, arrays: Arrays) -> NDArray[np.float32]:
        """Run a pass."""
        self.batches.append(arrays)
        if self.fails(arrays):
            raise MemoryError("out of memory")
        present = arrays["block_ids"] >= 0
        weights = np.arange(1, present.shape[1] + 1)
        sums = (arrays["input_ids"] * present * weights).sum(1)
        columns = [sums * (column + 1) for column in range(self.columns)]
        return np.stack(columns, axis=1)[:, :, None].astype(np.float32)

    @property
    def rows(self) -> list[list[int]]:
        """The ids of every row that was read, without padding."""
        return [
            row[blocks >= 0].tolist()
            for batch in self.batches
            for row, blocks in zip(batch["input_ids"], batch["block_ids"], strict=True)
        ]
