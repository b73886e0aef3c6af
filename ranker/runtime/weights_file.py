"""Weights that do not fit in ``model.onnx`` (protobuf ends at 2 GiB): one file beside it, bound by size and hash.

The file begins with ``HEADER_BYTES`` that hold the SHA-256 of all that follows, so a swapped file is found without
reading it whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from ranker.errors import ModelFileError

SUFFIX: Final = ".data"
HEADER_BYTES: Final = 4096
"""A page of memory, so that the tensors after it can be mapped."""

MAGIC: Final = b"ranker weights 1\nsha256 "
CHUNK: Final = 1 << 24


class WeightsFile(BaseModel):
    """Name, size in bytes and SHA-256 (of everything after the header, in hex) of a file of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[^/\\]+$", description="beside the model.onnx")
    size: int
    sha256: str


def header(sha256: str) -> bytes:
    """The first bytes of a file of weights."""
    return (MAGIC + sha256.encode() + b"\n").ljust(HEADER_BYTES, b"\0")


def check(model: Path, weights: WeightsFile, *, whole: bool = False) -> None:
    """Refuse a file of weights that is not the one that was written with ``model``.

    Args:
        model: the ``model.onnx``.
        weights: what its manifest says.
        whole: whether all bytes are read and hashed, rather than the size and the header alone.

    Raises:
        ModelFileError: the file is missing, cut, of another export, or (``whole``) changed.
    """
    path = model.with_name(weights.name)
    if not path.is_file():
        raise ModelFileError(f"{model}: its weights are in {weights.name}, which is not beside it; copy both files")
    size = path.stat().st_size
    if size != weights.size:
        raise ModelFileError(
            f"{path}: has {size:,} bytes, the weights of {model.name} have {weights.size:,}; copy it again from its "
            "source"
        )
    with path.open("rb") as file:
        if file.read(HEADER_BYTES) != header(weights.sha256):
            raise ModelFileError(f"{path}: holds the weights of another model than {model.name}; copy both files")
        if not whole:
            return
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != weights.sha256:
        raise ModelFileError(f"{path}: the weights differ from their recorded SHA-256; copy it again from its source")
