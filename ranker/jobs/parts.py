"""The files of a part: written beside their names, flushed, renamed. The name is the mark that a part is done."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.data.files import Row, line_of, opened
from ranker.jobs.plan import Part
from ranker.jobs.select import Make

MANIFEST: Final = "_manifest.jsonl"
SUCCESS: Final = "_SUCCESS"


def path_of(folder: Path, part: Part) -> Path:
    """Where a part's rows go: Parquet of Parquet, JSON lines of JSON lines."""
    return folder / f"{part.name}{'.parquet' if part.source.endswith('.parquet') else '.jsonl'}"


def schema_of(part: Part, prefix: str, make: Make, settings: Mapping[str, Any]) -> Any:
    """The Arrow schema of what is made of a part's rows, the job's settings in it; None where they are JSON lines."""
    if not part.source.endswith(".parquet"):
        return None
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if make == "pairs":
        texts = [(name, pa.string()) for name in ("prompt", "chosen", "rejected")]
        return pa.schema([*texts, ("margin", pa.float32())], {"ranker": json.dumps(settings)})
    kinds = {
        "scores": pa.list_(pa.float32()), "ranks": pa.list_(pa.int32()), "order": pa.list_(pa.int32()),
        "margin": pa.float32(), "truncated": pa.list_(pa.bool_()), "error": pa.string(),
    }  # fmt: skip
    with opened(part.source) as file:
        schema = parquet.read_schema(file)
    added = {prefix + name: kind for name, kind in kinds.items()} | ({"best": pa.string()} if make == "best" else {})
    for name, kind in added.items():
        schema = schema if name in schema.names else schema.append(pa.field(name, kind))
    return schema.with_metadata({**(schema.metadata or {}), b"ranker": json.dumps(settings).encode()})


def write(path: Path, part: Part, rows: Sequence[Row], schema: Any) -> dict[str, Any]:
    """Write the rows of a part in one step; what the manifest says of it.

    Args:
        path: of the part's file.
        part: which rows it had.
        rows: what became of them; fewer, where some were left out.
        schema: of Arrow; None writes JSON lines.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        if schema is None:
            draft.write_bytes("".join(line_of(row) + "\n" for row in rows).encode())
        else:
            _parquet(draft, rows, schema)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(path)
        _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)
    return {"part": part.number, "file": path.name, "read": part.rows, "rows": len(rows), "sha256": digest}


def _parquet(draft: Path, rows: Sequence[Row], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

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
