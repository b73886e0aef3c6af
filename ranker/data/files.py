"""Rows of files: JSONL (plain, .gz, .zst), Parquet, standard input and output."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from ranker.atomic import draft_file
from ranker.errors import DataError, MissingExtraError
from ranker.extras import require
from ranker.records import BadRow

Row = dict[str, Any]
OUTPUTS = (".jsonl", ".json", ".ndjson", ".gz", ".zst", ".out", ".tmp", "")
"""Extensions of an output; .gz and .zst are compressed."""

LINE_LIMIT = 64 * 1024 * 1024
"""Longest line in bytes, so that a compressed file cannot exhaust memory with one line."""


def read_rows(path: str) -> Iterator[tuple[str, Row | BadRow]]:
    """Rows of a file as (``file:line``, row); ``-`` is JSONL on standard input.

    For a line that is not a JSON object the row is its ``DataError``, so the caller decides whether it ends the run.
    JSONL is split only at line feeds. A Parquet row is named ``file:row``. fsspec reads names like ``s3://bucket/file``.

    Raises:
        DataError: the file does not exist, or is damaged.
        MissingExtraError: fsspec, or a package that it needs for the protocol, is not installed.
    """
    if path == "-":
        yield from _json_lines("stdin", sys.stdin.buffer)
        return
    with opened(path) as raw:
        try:
            if path.endswith(".parquet"):
                yield from _parquet(path, raw)
                return
            with _decompressed(raw, Path(path).suffix) as stream:
                yield from _json_lines(path, stream)
        except (EOFError, OSError, ValueError) as error:
            raise DataError(path, "file", f"damaged or truncated ({error}); copy it again from its source") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """The bytes of a local file, or with a protocol of a file that fsspec opens.

    Raises:
        DataError: there is no such file.
        MissingExtraError: as in ``read_rows``.
    """
    missing = DataError(path, "file", "expected an existing file, found none; check the path")
    if not remote(path):
        if not Path(path).is_file():
            raise missing
        with Path(path).open("rb") as file:
            yield file
        return
    fsspec = require("fsspec")
    try:
        file = fsspec.open(path, "rb").open()
    except FileNotFoundError as error:
        raise missing from error
    except ImportError as error:
        raise MissingExtraError(f"{path}: {error}") from error
    with file:
        yield file


def remote(path: str) -> bool:
    """Whether a name has a protocol, like ``s3://``."""
    return "://" in path


@contextlib.contextmanager
def write_rows(path: str) -> Iterator[IO[str]]:
    """A text stream for JSONL that becomes ``path`` when the block ends without an error; ``-`` is standard output.

    The rows go to a draft in the same folder, which is flushed to disk and renamed to ``path`` in one step. ``.gz`` and
    ``.zst`` are compressed.
    """
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    target = Path(path).resolve()
    if target.suffix not in OUTPUTS:
        raise DataError(
            path,
            "output",
            f"expected a name ending in {', '.join(filter(None, OUTPUTS))}, or none; JSON lines are written "
            "(ranker filter writes Parquet)",
        )
    if target.exists() and not target.is_file():  # a pipe or a device cannot be replaced
        with target.open("w", encoding="utf-8", newline="\n") as device:
            yield device
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        draft_file(target) as draft,
        draft.open("wb") as raw,
        _compressed(raw, target.suffix) as stream,
        io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as text,
    ):
        yield text


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


def _json_lines(name: str, stream: Any) -> Iterator[tuple[str, Row | BadRow]]:
    number = 0
    while line := stream.readline(LINE_LIMIT):
        number += 1
        where = f"{name}:{number}"
        if len(line) == LINE_LIMIT:
            raise DataError(where, "line", f"longer than {LINE_LIMIT} bytes; split the row")
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace")
        if not text.strip():
            continue
        if "\ufffd" in text and "\ufffd".encode() not in line:
            yield where, BadRow(where, "line", "expected UTF-8, got other bytes; convert the file", text)
            continue
        yield where, _json_row(where, text)


def _json_row(where: str, line: str) -> Row | BadRow:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return BadRow(where, "line", f"expected a JSON object, got invalid JSON ({error})", line)
    if not isinstance(row, dict):
        return BadRow(where, "line", f"expected a JSON object, got {type(row).__name__}", line)
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON, write null")


def _parquet(path: str, raw: Any) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(raw, page_checksum_verification=True) as parquet:
        for batch in parquet.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row


@contextlib.contextmanager
def _decompressed(raw: Any, suffix: str) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if suffix == ".gz":
            yield stack.enter_context(gzip.open(raw, "rb"))
        elif suffix == ".zst":
            import pyarrow as pa  # raises on a truncated frame, which other readers treat as the end

            yield io.BufferedReader(stack.enter_context(pa.input_stream(raw, compression="zstd")))
        else:
            yield raw


@contextlib.contextmanager
def _compressed(raw: IO[bytes], suffix: str) -> Iterator[Any]:
    if suffix == ".gz":
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
            yield stream
    elif suffix == ".zst":
        import pyarrow as pa

        with pa.CompressedOutputStream(raw, "zstd") as stream:
            yield stream
    else:
        yield raw
