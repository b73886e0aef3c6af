"""Files of rows that appear when they are complete: JSON lines, plain or compressed, and Parquet."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

from ranker.atomic import draft_file, output_errors, remove_dead_drafts
from ranker.data.files import Row, line_of
from ranker.errors import DataError, OutputError

logger = logging.getLogger(__name__)

OUTPUTS: Final = (".jsonl", ".json", ".ndjson", ".gz", ".zst", ".parquet", ".out", ".tmp", "")
"""Endings of an output; .gz and .zst are compressed."""

CHUNK: Final = 4096
"""Rows of a Parquet file that are converted together."""


class RowWriter(Protocol):
    """Takes rows."""

    def write(self, row: Row) -> None:
        """Write a row."""
        ...


class JsonWriter:
    """Rows as JSON lines on a stream of text."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: Row) -> None:
        """Write a row."""
        self._stream.write(line_of(row) + "\n")


@contextlib.contextmanager
def write_rows(path: str) -> Iterator[RowWriter]:
    """A writer of rows into ``path``, which appears when the block ends without an error; ``-`` is standard output.

    The rows go to a draft in the same folder, which is flushed to disk and renamed to ``path`` in one step. ``.gz`` and
    ``.zst`` are compressed; ``.parquet`` is a Parquet file, whose types come from the rows.

    Raises:
        DataError: an ending that is not known.
        OutputError: the file cannot be written.
    """
    check_output(path)
    with output_errors(path):
        if path == "-":
            yield JsonWriter(sys.stdout)
            sys.stdout.flush()
            return
        target = Path(path).resolve()
        if target.exists() and not target.is_file():  # a pipe or a device cannot be replaced
            with target.open("w", encoding="utf-8", newline="\n") as device:
                yield JsonWriter(device)
            return
        remove_dead_drafts(Path(target))
        with draft_file(target) as draft:
            if target.suffix.lower() == ".parquet":
                with ParquetWriter(draft) as writer:
                    yield writer
                return
            with (
                draft.open("wb") as raw,
                _compressed(raw, target.suffix.lower()) as stream,
                io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as text,
            ):
                yield JsonWriter(text)


def check_output(path: str) -> None:
    """Refuse an output that cannot be written, before the work is done; missing folders are made.

    Raises:
        DataError: an ending that is not known.
        OutputError: it is a folder, or its folder cannot be written.
    """
    if path == "-":
        return
    target = Path(path)
    if target.suffix.lower() not in OUTPUTS:
        raise DataError(
            path,
            "output",
            f"expected a name ending in {', '.join(filter(None, OUTPUTS))}, or none; {target.suffix} is not written",
        )
    if target.is_dir():
        raise OutputError(f"{path}: expected the name of a file to write, got a folder")
    with output_errors(path):
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        writable = target if target.exists() else target.resolve().parent
        if not os.access(writable, os.W_OK):
            raise PermissionError(13, os.strerror(13), str(writable))


def check_folder(path: str | Path) -> Path:
    """Make a folder, or refuse one that cannot be written, before the work is done.

    Raises:
        OutputError: a file has its name, or it cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{path}: expected a folder to write, got a file")
    with output_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, os.strerror(13), str(folder))
    return folder


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


class ParquetWriter:
    """Rows as a Parquet file whose types are known when all rows are: until then they are in a temporary file.

    A column whose values have types that no column can hold together is written as JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Row] = []
        self._types: dict[str, Any] = {}
        self._promoted: set[str] = set()
        self._chunks: Any = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  closed in __exit__

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._chunks:
            if kind is None:
                self._finish()

    def write(self, row: Row) -> None:
        """Write a row."""
        self._rows.append(row)
        if len(self._rows) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        columns = _columns(self._rows)
        for name, values in columns.items():
            kind = _type_of(values)
            before = self._types.setdefault(name, kind)
            if before != kind:
                self._types[name] = _common(before, kind)
                self._promoted.add(name)
        pickle.dump(columns, self._chunks)
        self._rows = []

    def _finish(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        if self._rows:
            self._flush()
        self._check_promoted()
        texts = [name for name, kind in self._types.items() if kind is None]
        if texts:
            logger.warning("columns with values of several types are written as JSON: %s", ", ".join(texts))
        kinds = {name: pa.string() if kind is None or kind == pa.null() else kind for name, kind in self._types.items()}
        schema = pa.schema(list(kinds.items()))
        self._chunks.seek(0)
        with parquet.ParquetWriter(self._path, schema, write_page_checksum=True) as writer:
            while chunk := _loaded(self._chunks):
                count = len(next(iter(chunk.values()), []))
                arrays = []
                for name, kind in kinds.items():
                    values = chunk.get(name, [None] * count)
                    if name in texts:
                        values = [None if value is None else line_of(value) for value in values]
                    arrays.append(pa.array(values, kind))
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    def _check_promoted(self) -> None:
        """Write a column as JSON whose common type does not hold all values, such as an id beyond 2^53 as a float."""
        self._chunks.seek(0)
        while self._promoted and (chunk := _loaded(self._chunks)):
            for name in self._promoted & chunk.keys():
                if self._types[name] is not None and not _holds(self._types[name], chunk[name]):
                    self._types[name] = None
        self._chunks.seek(0, io.SEEK_END)


def _loaded(stream: Any) -> dict[str, list[Any]]:
    try:
        chunk: dict[str, list[Any]] = pickle.load(stream)  # noqa: S301  written by this process
    except EOFError:
        return {}
    return chunk


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns of rows, None where a row has none; half a surrogate pair, which UTF-8 has not, as U+FFFD."""
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        shown = _encodable(name)
        while shown in columns:
            shown += "_"
        columns[shown] = [_encodable(row.get(name)) for row in rows]
    return columns


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _encodable(inner) for key, inner in value.items()}
    return [_encodable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _type_of(values: Sequence[Any]) -> Any:
    """The Arrow type of a column; None where no type holds all values."""
    import pyarrow as pa

    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
    return None if _has_empty_struct(kind) else kind


def _holds(kind: Any, values: Sequence[Any]) -> bool:
    """Whether a type holds all values."""
    import pyarrow as pa

    try:
        pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False
    return True


def _has_empty_struct(kind: Any) -> bool:
    """Whether a type holds objects without keys, which Parquet does not have."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)
    return bool(pa.types.is_list(kind)) and _has_empty_struct(kind.value_type)


def _common(first: Any, second: Any) -> Any:
    """The type that holds the values of both; None without one."""
    import pyarrow as pa

    if first is None or second is None:
        return None
    schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return None
