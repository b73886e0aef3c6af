"""Files of rows: opened wherever they are, and written in one step."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ranker.errors import DataError, MissingExtraError
from ranker.extras import require

Row = dict[str, Any]


class Cells(dict[str, Any]):
    """A row of a CSV file: its values are texts, and lists are written as JSON."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """The bytes of a local file, or with a protocol of a file that fsspec opens.

    Raises:
        DataError: there is no such file.
        MissingExtraError: fsspec, or a package that it needs for the protocol, is not installed.
    """
    if not remote(path):
        if not Path(path).is_file():
            raise missing(path)
        try:
            file = Path(path).open("rb")  # noqa: SIM115  closed below
        except OSError as error:
            raise DataError(path, "file", f"expected a file that can be read ({error.strerror})") from error
        with file:
            yield file
        return
    fsspec = require("fsspec")
    try:
        remote_file = fsspec.open(path, "rb").open()
    except FileNotFoundError as error:
        raise missing(path) from error
    except ImportError as error:
        raise MissingExtraError(f"{path}: {error}") from error
    with remote_file:
        yield remote_file


def missing(path: str) -> DataError:
    """The error of a file that is not there."""
    return DataError(path, "file", "expected an existing file, found none; check the path")


def remote(path: str) -> bool:
    """Whether a name has a protocol, like ``s3://``."""
    return "://" in path


def line_of(row: Row) -> str:
    """A row as a line of valid JSON in UTF-8: NaN and infinity are null, lone surrogates are escaped."""
    try:
        line = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        line = json.dumps(finite(row), ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(json.loads(line))
    return line


def rename_collisions(columns: Row, names: Collection[str]) -> Row:
    """The columns, in order; those with a name of ``names`` become ``input_<name>``, so that no column is lost."""
    reserved = {*columns, *names}
    renamed: Row = {}
    for name, value in columns.items():
        new_name = name
        while new_name in names or (new_name != name and new_name in reserved):
            new_name = f"input_{new_name}"
        renamed[new_name] = value
    return renamed


def finite(value: Any) -> Any:
    """A JSON value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
