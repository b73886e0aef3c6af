"""The files of a part: written beside their names, flushed, renamed. The name is the mark that a part is done."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.data.files import Row, finite
from ranker.jobs.plan import Part

MANIFEST: Final = "_manifest.jsonl"
SUCCESS: Final = "_SUCCESS"


def path_of(folder: Path, part: Part) -> Path:
    """Where a part's rows go: Parquet of Parquet, JSON lines of JSON lines."""
    return folder / f"{part.name}{'.parquet' if part.source.endswith('.parquet') else '.jsonl'}"


def write(path: Path, part: Part, rows: Sequence[Row], kinds: dict[str, Any]) -> dict[str, Any]:
    """Write the rows of a part in one step; what the manifest says of it.

    Args:
        path: of the part's file.
        part: which rows it had.
        rows: what became of them; fewer, where some were left out.
        kinds: Arrow types of the columns that were added.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        if path.suffix == ".parquet":
            _parquet(draft, part, rows, kinds)
        else:
            lines = "".join(_line(row) for row in rows)
            draft.write_bytes(lines.encode("utf-8", errors="surrogatepass") if lines.isascii() else _encoded(lines))
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(path)
        _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)
    return {"part": part.number, "file": path.name, "read": part.rows, "rows": len(rows), "sha256": digest}


def _line(row: Row) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    except ValueError:  # NaN or infinity of the input, which JSON does not have
        return json.dumps(finite(row), ensure_ascii=False, default=str) + "\n"


def _encoded(lines: str) -> bytes:
    try:
        return lines.encode()
    except UnicodeEncodeError:  # a lone surrogate of the input, kept as its escape
        return "".join(json.dumps(json.loads(line)) + "\n" for line in lines.splitlines() if line).encode()


def _parquet(draft: Path, part: Part, rows: Iterable[Row], kinds: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(part.source)
    for name, kind in kinds.items():
        schema = schema.append(pa.field(name, kind))
    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft, write_page_checksum=True)


def note(folder: Path, facts: dict[str, Any]) -> None:
    """Add a line to the manifest; one write, so that lines of several workers do not mix."""
    line = json.dumps(facts, sort_keys=True) + "\n"
    handle = os.open(folder / MANIFEST, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
