"""Passes whose inputs and outputs stay in the memory of a device (IO binding), a buffer for each shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ranker.extras import require
from ranker.layouts.layout import Arrays
from ranker.scoring.protocol import Floats


class Bound:
    """Runs a session on few shapes, each with inputs that stay in the device's memory (IO binding).

    One pass at a time: the buffers of a shape are written anew by every pass.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        device: the device of the inputs, ``cuda`` or ``cpu``.
        number: which of several devices.
    """

    def __init__(self, session: Any, device: str, number: int = 0) -> None:
        self.session = session
        self.place = device, number
        self._shapes: dict[Sequence[tuple[int, ...]], tuple[Any, dict[str, Any]]] = {}

    def run(self, arrays: Arrays) -> Floats:
        """The ``scores`` of one pass."""
        key = tuple(array.shape for array in arrays.values())
        if key not in self._shapes:
            self._shapes[key] = self._bind(arrays)
        binding, values = self._shapes[key]
        for name, array in arrays.items():
            values[name].update_inplace(np.ascontiguousarray(array))
        self.session.run_with_iobinding(binding)
        scores: Floats = binding.copy_outputs_to_cpu()[0]
        return scores

    def _bind(self, arrays: Arrays) -> tuple[Any, dict[str, Any]]:
        ort = require("onnxruntime")
        binding = self.session.io_binding()
        values = {n: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(a), *self.place) for n, a in arrays.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("scores", *self.place)
        return binding, values
