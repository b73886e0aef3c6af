"""``model.onnx`` as a file: its metadata and digest, read and written without the onnx package.

An ONNX file is a protobuf message whose top-level fields can be walked without a schema. The manifest and the
tokenizer are ``metadata_props`` entries (field 14); the digest covers every other field, so it can be stored inside.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ranker.atomic import draft_file
from ranker.errors import ModelFileError

EXPORTED: Final = "model.onnx"
"""The exported file of a folder or repository, in fp32."""

METADATA_FIELD: Final = 14
GRAPH_FIELD: Final = 7
VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5


def exported_name(precision: str) -> str:
    """The name of the exported file of a precision in a folder.

    Example:
        >>> exported_name("int8")
        'model.int8.onnx'
    """
    return EXPORTED if precision == "fp32" else f"model.{precision}.onnx"


def read(path: Path) -> tuple[dict[str, str], str]:
    """Metadata of an ONNX file and the SHA-256 of everything else in it.

    Raises:
        ModelFileError: the file is missing, truncated or not an ONNX model.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: expected a model.onnx, found no file")
    metadata: dict[str, str] = {}
    digest = hashlib.sha256()
    has_graph = False
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path}: the file is empty; copy it again from its source")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for field, start, payload, end in _fields(data):
                if field == METADATA_FIELD:
                    key, value = _entry(data[payload:end])
                    metadata[key] = value
                else:
                    has_graph |= field == GRAPH_FIELD
                    digest.update(memoryview(data)[start:end])
        except (IndexError, ValueError) as error:
            raise ModelFileError(f"{path}: truncated or not an ONNX file; copy it again from its source") from error
    if not has_graph:
        raise ModelFileError(f"{path}: not an ONNX model (it holds no graph)")
    return metadata, digest.hexdigest()


def write(path: Path, graph: Path, metadata: Mapping[str, str]) -> None:
    """Copy the ONNX file ``graph`` to ``path`` with ``metadata`` in place of its own."""
    data = graph.read_bytes()
    kept = [data[start:end] for field, start, _, end in _fields(data) if field != METADATA_FIELD]
    entries = [_encode(METADATA_FIELD, _encode(1, k.encode()) + _encode(2, v.encode())) for k, v in metadata.items()]
    with draft_file(path) as draft, draft.open("wb") as out:
        out.writelines([*kept, *entries])


INITIALIZER: Final = 5
NODE: Final = 1
ATTRIBUTE: Final = 5
ATTRIBUTE_TENSORS: Final = (5, 10)
ATTRIBUTE_GRAPHS: Final = (6, 11)
EXTERNAL_DATA: Final = 13
"""Numbers of fields of GraphProto, NodeProto, AttributeProto and TensorProto (onnx.proto)."""


def has_external_data(path: Path) -> bool:
    """Whether a tensor of the graph lies in another file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graphs = [(payload, end) for field, _, payload, end in _fields(data) if field == GRAPH_FIELD]
        while graphs:
            for field, _, payload, end in _fields(data, *graphs.pop()):
                if field == INITIALIZER and _is_external(data, payload, end):
                    return True
                for kind, start, stop in _attributes(data, payload, end) if field == NODE else ():
                    if kind in ATTRIBUTE_TENSORS and _is_external(data, start, stop):
                        return True
                    graphs += [(start, stop)] if kind in ATTRIBUTE_GRAPHS else []
    return False


def _attributes(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of the values of a node's attributes."""
    for field, _, payload, stop in _fields(data, start, end):
        if field == ATTRIBUTE:
            yield from ((kind, first, last) for kind, _, first, last in _fields(data, payload, stop))


def _is_external(data: mmap.mmap, start: int, end: int) -> bool:
    return any(field == EXTERNAL_DATA for field, *_ in _fields(data, start, end))


def _fields(data: bytes | mmap.mmap, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start, payload start, end) of each field of a message; ValueError or IndexError when malformed."""
    position, size = start, len(data) if end is None else end
    while position < size:
        start = position
        key, position = _varint(data, position)
        kind, payload = key & 7, position
        if kind == VARINT:
            _, position = _varint(data, position)
        elif kind == BYTES:
            length, payload = _varint(data, position)
            position = payload + length
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position > size:
            raise IndexError("field passes the end of the file")
        yield key >> 3, start, payload, position


def _varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _entry(data: bytes) -> tuple[str, str]:
    parts = {field: data[payload:end].decode("utf-8") for field, _, payload, end in _fields(data)}
    return parts.get(1, ""), parts.get(2, "")


def _encode(field: int, payload: bytes) -> bytes:
    return _encode_varint(field << 3 | BYTES) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
