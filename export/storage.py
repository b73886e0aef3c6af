"""Tensors of a graph on disk: read one at a time, and written beside ``model.onnx`` where protobuf ends (2 GiB)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ranker.runtime.weights_file import CHUNK, HEADER_BYTES, SUFFIX, WeightsFile, header

LIMIT: Final = 1_900_000_000
"""Bytes of tensors that go into one file; protobuf refuses messages from 2 GiB."""

SMALL: Final = 1024
"""Bytes up to which a tensor stays in the graph: shapes and constants that passes over the graph look at."""

ALIGNMENT: Final = 4096

Values = Callable[[], NDArray[Any]]


def load(path: Path) -> onnx.ModelProto:
    """A graph whose large tensors stay on disk; ``array`` reads them."""
    return onnx.load(path, load_external_data=False)


def is_large(path: Path) -> bool:
    """Whether a graph's weights lie in a file beside it."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in load(path).graph.initializer)


def nbytes(tensor: TensorProto) -> int:
    """Bytes of a tensor, wherever it is."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return int(math.prod(tensor.dims) * dtype.itemsize)


def array(tensor: TensorProto, folder: Path) -> NDArray[Any]:
    """A tensor's values; those on disk are mapped, not read.

    Args:
        tensor: of a graph of ``load``.
        folder: where the graph is.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        values: NDArray[Any] = numpy_helper.to_array(tensor)
        return values
    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    return np.memmap(folder / place["location"], dtype, "r", int(place.get("offset", 0)), shape or (1,)).reshape(shape)


def constant(tensor: TensorProto, folder: Path) -> TensorProto:
    """A copy of a tensor with its bytes in it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    return numpy_helper.from_array(np.ascontiguousarray(array(tensor, folder)), tensor.name)


def save(
    model: onnx.ModelProto, path: Path, folder: Path, converted: Mapping[str, Values] | None = None
) -> WeightsFile | None:
    """Write a graph to ``path``: with its tensors, or where they pass ``LIMIT`` with a file of weights beside it.

    The hash of the weights is written into the graph, so the graph's own hash stands for both.

    Args:
        model: changed: its tensors say where they are now.
        path: the graph's new file.
        folder: where the tensors that are not in ``model`` lie now.
        converted: values of tensors by name, in the place of those on disk; each is asked for when it is written.

    Returns:
        What was written beside it.
    """
    converted = converted or {}
    tensors = model.graph.initializer
    total = sum(map(nbytes, tensors))
    if total <= LIMIT:
        for tensor in tensors:
            values = converted.get(tensor.name)
            stored = constant(tensor, folder) if values is None else numpy_helper.from_array(values(), tensor.name)
            tensor.CopyFrom(stored)
        onnx.save(model, path)
        return None
    name = path.name + SUFFIX
    digest = hashlib.sha256()
    with path.with_name(name).open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for tensor in tensors:
            if nbytes(tensor) <= SMALL and tensor.name not in converted:
                tensor.CopyFrom(constant(tensor, folder))
                continue
            padding = bytes(-file.tell() % ALIGNMENT)
            file.write(padding)
            digest.update(padding)
            start = file.tell()
            values = converted.get(tensor.name)
            for chunk in _chunks(array(tensor, folder) if values is None else values()):
                file.write(chunk)
                digest.update(chunk)
            _place(tensor, name, start, file.tell() - start)
        size = file.tell()
        file.seek(0)
        file.write(header(digest.hexdigest()))
    model.graph.doc_string = f"weights {digest.hexdigest()}"
    onnx.save(model, path)
    return WeightsFile(name=name, size=size, sha256=digest.hexdigest())


def _place(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "external_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _chunks(values: NDArray[Any]) -> Iterator[bytes]:
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK].tobytes()
