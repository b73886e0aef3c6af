"""The files of a part: written beside their names, flushed, renamed. The name is the mark that a part is done."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.atomic import sync, write_text
from ranker.data.files import Row, line_of, opened, rename_collisions
from ranker.jobs.leases import STALE
from ranker.jobs.plan import Part
from ranker.jobs.select import Make

MANIFEST: Final = "_manifest.jsonl"
SUCCESS: Final = "_SUCCESS"
FACTS: Final = "_parts"
LEFT: Final = (".part-*", ".errors-*", "..part-*")
"""Drafts and leases."""


def path_of(folder: Path, part: Part) -> Path:
    """Where a part's rows go: Parquet of Parquet, JSON lines of JSON lines."""
    return folder / f"{part.name}{'.parquet' if part.source.endswith('.parquet') else '.jsonl'}"


def schema_of(part: Part, prefix: str, make: Make, settings: Mapping[str, Any], *, scored: bool) -> Any:
    """The Arrow schema of what is made of a part's rows, the job's settings in it; None where they are JSON lines.

    ``scored`` says that the source's results are this job's own; otherwise columns of those names make room.
    """
    if not part.source.endswith(".parquet"):
        return None
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if make == "pairs":
        texts = [(name, pa.string()) for name in ("prompt", "chosen", "rejected")]
        return pa.schema([*texts, ("margin", pa.float32())], {"ranker": json.dumps(settings)})
    kinds: dict[str, Any] = {
        "scores": pa.list_(pa.float32()), "ranks": pa.list_(pa.int32()), "order": pa.list_(pa.int32()),
        "margin": pa.float32(), "truncated": pa.list_(pa.bool_()), "error": pa.string(),
    }  # fmt: skip
    with opened(part.source) as file:
        schema = parquet.read_schema(file)
    added = {} if scored else {prefix + name: kind for name, kind in kinds.items()}
    added |= {"best": pa.string()} if make == "best" else {}
    names = rename_collisions(dict.fromkeys(schema.names), added)
    fields = [field.with_name(name) for field, name in zip(schema, names, strict=True)]
    fields += [pa.field(name, kind) for name, kind in added.items()]
    return pa.schema(fields, {**(schema.metadata or {}), b"ranker": json.dumps(settings).encode()})


def write(path: Path, rows: Sequence[Row], schema: Any, note: Callable[[str], None] = lambda digest: None) -> None:
    """Write the rows of a part in one step.

    Args:
        path: of the part's file.
        rows: what became of its rows.
        schema: of Arrow; None writes JSON lines.
        note: called with the file's SHA-256 before the file has its name, so that no part is there without its facts.
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
        note(digest)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def note(folder: Path, part: Part, facts: Mapping[str, Any]) -> None:
    """Write what is known of a part, in one step."""
    (folder / FACTS).mkdir(exist_ok=True)
    write_text(folder / FACTS / f"{part.name}.json", json.dumps(facts, sort_keys=True) + "\n")


def facts(folder: Path) -> list[dict[str, Any]]:
    """What is known of every part that was done, in order."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / FACTS).glob("part-*.json"))]


def finish(folder: Path) -> None:
    """Put the facts of all parts into ``_manifest.jsonl`` and remove what dead workers left."""
    write_text(folder / MANIFEST, "".join(json.dumps(own, sort_keys=True) + "\n" for own in facts(folder)))
    for left in (path for pattern in LEFT for path in folder.glob(pattern)):
        if time.time() - left.stat().st_mtime >= STALE or left.suffix == ".lease":
            left.unlink(missing_ok=True)


def _parquet(draft: Path, rows: Sequence[Row], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft, write_page_checksum=True)
