"""Rows of files: JSON lines, JSON arrays, CSV and TSV, Parquet and Arrow, plain or compressed, and standard input."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final

from ranker.data.files import Cells, Row, opened
from ranker.errors import DataError
from ranker.extras import require
from ranker.records import BadRow

NamedRow = tuple[str, Row | BadRow]
Rows = Iterator[NamedRow]

COMPRESSED: Final = (".gz", ".zst")
MAGIC: Final = {
    b"PAR1": (".parquet", "a Parquet file"),
    b"ARROW1": (".arrow", "an Arrow file"),
    b"\x1f\x8b": (".gz", "a gzip file"),
    b"\x28\xb5\x2f\xfd": (".zst", "a zstd file"),
    b"PK\x03\x04": ("", "a zip archive; unpack it first"),
}
"""First bytes of files that are not text, the ending that they have here, and what they are."""

LINE_LIMIT: Final = 64 * 1024 * 1024
"""Longest line in bytes, so that a compressed file cannot exhaust memory with one line."""

NO_ROWS: Final = 8
"""A file whose first lines are this many lines without a row is not one of JSON lines."""

SPACE: Final = re.compile(r"\s*")
COUNT_BLOCK: Final = 1 << 24
ARRAY_BLOCK: Final = 1 << 20
CUT: Final = 12
"""Characters at the end of a piece of JSON in which an error may only mean that the piece is cut."""

CSV_BLOCK: Final = 1 << 24
"""Bytes that are read at a time; a row of a CSV file may not be longer."""

CSV_COLUMNS: Final = 4096


def read_rows(path: str) -> Rows:
    """Rows of a file as (``file:line``, row); ``-`` is JSONL on standard input.

    The ending says what a file is: ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, and JSON in all other cases, as lines
    or as one array; ``.gz`` and ``.zst`` behind it are compressed. For a line that is not a JSON object the row is a
    ``BadRow``, so the caller decides whether it ends the run. JSONL is split only at line feeds. Rows of other files
    are numbered from 1. All cells of CSV files are texts, and an empty cell is an empty text. fsspec reads names like
    ``s3://bucket/file``.

    Raises:
        DataError: the file does not exist, is damaged, or holds something else than its ending says.
        MissingExtraError: fsspec, or a package that it needs for the protocol, is not installed.
    """
    if path == "-":
        with _naming_damage("stdin"):
            yield from _json("stdin", sys.stdin.buffer)
        return
    reader, compression = _reader_of(path)
    with opened(path) as raw, _naming_damage(path):
        _check_head(path, raw, compression or PurePath(path).suffix)
        with _decompressed(raw, compression) as stream:
            yield from reader(path, stream)


def row_count(path: str) -> int | None:
    """About how many rows a local file has: line ends of plain JSON lines, the footer of Parquet; None of others."""
    suffix = PurePath(path).suffix.lower()
    if path == "-" or not os.path.isfile(path):
        return None
    with _naming_damage(path):
        if suffix == ".parquet":
            return int(require("pyarrow.parquet").read_metadata(path).num_rows)
        if suffix == ".jsonl":
            with open(path, "rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(COUNT_BLOCK), b""))
    return None


@contextlib.contextmanager
def _naming_damage(path: str) -> Iterator[None]:
    """Turn what readers raise of damaged files into an error of one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(path, "file", f"expected UTF-8, got other bytes ({error}); convert the file") from error
    except NotImplementedError as error:  # of Arrow
        raise DataError(path, "file", f"expected a kind of file that Arrow reads ({error})") from error
    except (EOFError, OSError, ValueError) as error:
        raise DataError(path, "file", f"damaged or truncated ({error}); copy it again from its source") from error


def _reader_of(path: str) -> tuple[Callable[[str, Any], Rows], str]:
    """What reads a file, and its compression."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    return KINDS.get(suffixes[-1] if suffixes else "", _json), compression


def is_table(path: str) -> bool:
    """Whether the ending of a file says that its rows are cells of text."""
    return _reader_of(path)[0] in (_csv, _tsv)


def _check_head(path: str, raw: Any, suffix: str) -> None:
    """Refuse a file that begins like another kind than its ending says, once, not once per line."""
    head = raw.read(8)
    raw.seek(0)
    for magic, (ending, kind) in MAGIC.items():
        if head.startswith(magic) and suffix.lower() != ending:
            advice = f"; name it {ending}" if ending else ""
            raise DataError(path, "file", f"expected what its ending '{suffix}' says, got {kind}{advice}")
    if suffix.lower() in (".csv", ".tsv") and head.lstrip(b"\xef\xbb\xbf \n\r")[:1] in (b"{", b"["):
        raise DataError(path, "file", f"expected what its ending '{suffix}' says, got JSON; name it .jsonl or .json")


@contextlib.contextmanager
def _decompressed(raw: Any, compression: str) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if compression == ".gz":
            yield stack.enter_context(gzip.open(raw, "rb"))
        elif compression == ".zst":
            import pyarrow as pa  # raises on a truncated frame, which other readers treat as the end

            yield io.BufferedReader(stack.enter_context(pa.input_stream(raw, compression="zstd")))
        else:
            yield raw


def _json(name: str, stream: Any) -> Rows:
    """Rows of JSON lines, or of one array."""
    blank = 0
    while (first := stream.readline(LINE_LIMIT)) and not first.strip(b"\xef\xbb\xbf \t\r\n"):
        blank += 1
    if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _array(name, first, stream)
    else:
        yield from _checked_lines(name, _lines(name, first, stream, blank))


def _checked_lines(name: str, rows: Rows) -> Rows:
    """The rows, once there is one among the first lines.

    Raises:
        DataError: none of the first lines holds a row, so that each of a whole file would be an error of its own.
    """
    bad: list[tuple[str, BadRow]] = []
    for where, row in rows:
        if isinstance(row, BadRow):
            bad.append((where, row))
            if len(bad) == NO_ROWS:
                break
            continue
        yield from bad
        yield where, row
        yield from rows
        return
    if bad:
        _, first = bad[0]
        several = "; got one object over several lines" if first.raw.strip() == "{" else ""
        raise DataError(
            name,
            "file",
            f"expected a JSON object on every line, or one array of objects{several} ({first.where}: {first.reason}); "
            "files of other kinds end in .csv, .tsv or .parquet",
            first.raw,
        )


def _lines(name: str, line: bytes, stream: Any, blank: int) -> Rows:
    """Rows of lines, from the first one that is not blank, after ``blank`` others."""
    number = blank
    for read in (io.BytesIO(line), stream):
        while line := read.readline(LINE_LIMIT):
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
            yield where, _row(where, text)


def _row(where: str, line: str) -> Row | BadRow:
    try:
        row = DECODER.decode(line.strip())
    except (ValueError, RecursionError) as error:
        return BadRow(where, "line", f"expected a JSON object, got invalid JSON ({error})", line)
    if not isinstance(row, dict):
        return BadRow(where, "line", f"expected a JSON object, got {type(row).__name__}", line)
    return row


class RepeatedKeyError(ValueError):
    """An object with a key that occurs twice."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> Row:
    """An object as a dict; a key that occurs twice would lose its first value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return row


DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique)
"""Reads NaN and Infinity too, as Python writes them; fields that are read refuse them."""


def _array(name: str, head: bytes, stream: Any) -> Rows:
    """The rows of one array, read piece by piece."""
    decode = codecs.getincrementaldecoder("utf-8-sig")()
    buffer, at = decode.decode(head), 0
    at = buffer.index("[") + 1
    number, at_end, needs_comma = 0, False, False
    while True:
        at = SPACE.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing too
        if buffer.startswith("]", at):
            if (buffer[at + 1 :] + decode.decode(stream.read(ARRAY_BLOCK))).strip():
                raise DataError(name, "file", "expected nothing after the array of rows; write one array or JSON lines")
            return
        if needs_comma and at < len(buffer):
            if buffer[at] != ",":
                raise DataError(name, "file", f"expected a comma after row {number} of the array, got '{buffer[at]}'")
            at, needs_comma = at + 1, False
            continue
        row, end = _element(buffer, at, at_end, f"{name}:{number + 1}")
        if end == len(buffer) and not at_end:  # the value may go on
            block = stream.read(max(ARRAY_BLOCK, end - at))
            at_end = not block
            buffer, at = buffer[at:] + decode.decode(block, final=at_end), 0
            continue
        number += 1
        yield f"{name}:{number}", row
        at, needs_comma = end, True


def _element(buffer: str, at: int, at_end: bool, where: str) -> tuple[Row | BadRow, int]:
    """The row that begins at a place of the buffer, and where it ends: at the buffer's end it may go on.

    Raises:
        DataError: invalid JSON, after which no later row can be found.
    """
    try:
        value, end = DECODER.raw_decode(buffer, at)
    except RepeatedKeyError as error:
        _, end = json.JSONDecoder().raw_decode(buffer, at)
        return BadRow(where, "row", f"expected a JSON object, got invalid JSON ({error})", buffer[at:end]), end
    except (ValueError, RecursionError) as error:
        if not at_end and _may_go_on(error, len(buffer)) and len(buffer) - at <= LINE_LIMIT:
            return {}, len(buffer)
        raise DataError(where, "file", f"expected a whole array of rows, got invalid JSON ({error})") from error
    if isinstance(value, dict):
        return value, end
    return BadRow(where, "row", f"expected a JSON object, got {type(value).__name__}", buffer[at:end]), end


def _may_go_on(error: Exception, length: int) -> bool:
    """Whether JSON may only be cut, not wrong: it ends within a text, or in its last characters."""
    cut = isinstance(error, json.JSONDecodeError)
    return cut and (error.msg.startswith("Unterminated string") or error.pos >= length - CUT)  # type: ignore[attr-defined]


def _parquet(name: str, raw: Any) -> Rows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(raw, page_checksum_verification=True) as parquet:
        yield from _numbered(name, (row for batch in parquet.iter_batches(1024) for row in batch.to_pylist()))


def _arrow(name: str, raw: Any) -> Rows:
    """Rows of an Arrow file, or of a stream, which is what the ``datasets`` library writes."""
    import pyarrow as pa

    head = raw.read(6)
    raw.seek(0)
    if head == b"ARROW1":
        file = pa.ipc.open_file(raw)
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
    else:
        batches = iter(pa.ipc.open_stream(raw))
    yield from _numbered(name, (row for batch in batches for row in batch.to_pylist()))


def _csv(name: str, raw: Any) -> Rows:
    yield from _table(name, raw, ",")


def _tsv(name: str, raw: Any) -> Rows:
    yield from _table(name, raw, "\t")


def _table(name: str, raw: Any, delimiter: str) -> Rows:
    """Rows of a table of texts under a line of names; a row with another number of cells is a ``BadRow``.

    The first line is read as a row too, so that no type is guessed from a column of a name that is not known yet.
    """
    import pyarrow as pa
    from pyarrow import csv

    bad: dict[int, tuple[str, str]] = {}

    def skip(row: Any) -> str:
        reason = f"expected {row.expected_columns} cells, as the first line has, got {row.actual_columns}"
        bad[row.number] = reason, row.text
        return "skip"

    counted = _QuoteCounter(raw)
    texts = {f"f{i}": pa.binary() for i in range(CSV_COLUMNS)}
    try:
        batches = csv.open_csv(
            counted,
            read_options=csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK, autogenerate_column_names=True),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=csv.ConvertOptions(check_utf8=False, column_types=texts, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise
    rows = (cells for batch in batches for cells in zip(*(column.to_pylist() for column in batch), strict=True))
    names = [cell.decode() or f"column_{place}" for place, cell in enumerate(next(rows), 1)]
    if len(set(names)) < len(names):
        raise DataError(name, "file", f"expected columns of different names, got {', '.join(names)}")
    number = 1  # the line of names
    for cells in rows:
        number += 1
        while number in bad:
            yield _bad_cells(name, number, bad)
            number += 1
        where = f"{name}:{number - 1}"
        try:
            yield where, Cells((column, cell.decode()) for column, cell in zip(names, cells, strict=True))
        except UnicodeDecodeError:
            text = delimiter.join(cell.decode(errors="replace") for cell in cells)
            yield where, BadRow(where, "row", "expected UTF-8, got other bytes; convert the file", text)
    if counted.quotes % 2 and number > 1 and (b"\n" in cells[-1] or counted.last != b"\n"):
        raise DataError(f"{name}:{number - 1}", "row", "expected a quote that ends the last cell; the file is cut")
    for number in sorted(late for late in bad if late > number):
        yield _bad_cells(name, number, bad)


class _QuoteCounter(io.RawIOBase):
    """A stream that counts its quotes, an odd number of which leaves a cell open, and keeps its last byte."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.quotes = 0
        self.last = b""

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block: bytes = self._stream.read(size)
        self.quotes += block.count(b'"')
        self.last = block[-1:] or self.last
        return block


def _bad_cells(name: str, number: int, bad: dict[int, tuple[str, str]]) -> NamedRow:
    where = f"{name}:{number - 1}"
    reason, text = bad[number]
    return where, BadRow(where, "row", f"{reason}; quote cells that hold the separator or a quote", text)


def _numbered(name: str, rows: Iterator[Any]) -> Rows:
    for number, row in enumerate(rows, 1):
        yield f"{name}:{number}", row


KINDS: Final[dict[str, Callable[[str, Any], Rows]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""By the ending; all others are JSON."""

ENDINGS: Final = (".jsonl", ".json", ".ndjson", *KINDS)
"""Endings of files of rows, besides those of their compression."""
