"""Few shapes for engines that compile per shape: arrays are padded to the next size, and bound on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ranker.extras import require
from ranker.layouts import Layout
from ranker.layouts.layout import Arrays
from ranker.scoring.protocol import Floats

STEPS: Final = (1, 2, 3, 4, 6, 8)
"""Sizes up to 8; above, four sizes between a power of two and the next."""


def bucket(size: int) -> int:
    """The smallest allowed size that holds ``size``; from 8 on at most a quarter is padding."""
    if size <= STEPS[-1]:
        return next(step for step in STEPS if step >= size)
    quarter = 1 << (size - 1).bit_length() - 3
    return -(-size // quarter) * quarter


def padded(arrays: Arrays, layout: Layout) -> Arrays:
    """The same pass with every size a ``bucket``: empty places at the ends of rows, and copies of the first row."""
    empty = {"input_ids": layout.pad_id, "position_ids": layout.position_offset}
    return {name: _grown(array, empty.get(name, -1)) for name, array in arrays.items()}


def _grown(array: np.ndarray, empty: int) -> np.ndarray:
    rows, width = array.shape
    wide = np.pad(array, ((0, 0), (0, bucket(width) - width)), constant_values=empty)
    return np.concatenate([wide, np.repeat(wide[:1], bucket(rows) - rows, axis=0)])


class Bound:
    """Runs a session on few shapes, each with inputs that stay in the device's memory (IO binding).

    Args:
        session: an ``onnxruntime.InferenceSession``.
        layout: how the model reads a group.
        device: the device of the inputs, ``cuda`` or ``cpu``.
        number: which of several devices.
    """

    def __init__(self, session: Any, layout: Layout, device: str, number: int = 0) -> None:
        self.session = session
        self.layout = layout
        self.place = device, number
        self._shapes: dict[Sequence[tuple[int, ...]], tuple[Any, dict[str, Any]]] = {}

    def run(self, arrays: Arrays) -> Floats:
        """The ``scores`` of one pass."""
        wide = padded(arrays, self.layout)
        key = tuple(array.shape for array in wide.values())
        if key not in self._shapes:
            self._shapes[key] = self._bind(wide)
        binding, values = self._shapes[key]
        for name, array in wide.items():
            values[name].update_inplace(np.ascontiguousarray(array))
        self.session.run_with_iobinding(binding)
        (rows, _), logits = arrays["input_ids"].shape, binding.copy_outputs_to_cpu()[0]
        scores: Floats = logits[:rows]
        return scores

    def _bind(self, arrays: Arrays) -> tuple[Any, dict[str, Any]]:
        ort = require("onnxruntime")
        binding = self.session.io_binding()
        values = {n: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(a), *self.place) for n, a in arrays.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("scores", *self.place)
        return binding, values
