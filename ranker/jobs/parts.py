"""The files of a part, written atomically. A part is done when its file exists."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ranker.atomic import draft_file, is_dead, write_text
from ranker.batch_scorer import arrow_types
from ranker.data.files import Row, line_of, opened, rename_collisions
from ranker.errors import JobError
from ranker.jobs.leases import STALE
from ranker.jobs.plan import Part
from ranker.jobs.select import OutputRows

MANIFEST: Final = "_manifest.jsonl"
SUCCESS: Final = "_SUCCESS"
FACTS: Final = "_parts"
NOTED: Final[Mapping[str, type]] = {
    "part": int,
    "file": str,
    "read": int,
    "rows": int,
    "errors": int,
    "scores": dict,
    "sha256": str,
}
"""Facts that every part has, and their types."""

MEASURED: Final = ("seconds", "model")
"""Facts that say who did a part and how fast; the manifest is the same whoever did the job."""

LEFT: Final = (".part-*", ".errors-*", "..part-*", "._*", ".summary.*", f"{FACTS}/.part-*")
"""Patterns of drafts and leases."""


def path_of(folder: Path, part: Part) -> Path:
    """The file of a part: Parquet for Parquet input, otherwise JSON lines."""
    return folder / f"{part.name}{'.parquet' if part.is_parquet else '.jsonl'}"


def errors_path(folder: Path, part: Part) -> Path:
    """The file of the rows of a part that failed, where a selection leaves them out."""
    return folder / f"errors-{part.number:06d}.jsonl"


def schema_of(
    part: Part, prefix: str, output_rows: OutputRows, settings: Mapping[str, Any], *, scored: bool, messages: bool
) -> Any:
    """The Arrow schema of a part's output in Parquet.

    Args:
        part: whose source has the input's columns.
        prefix: of the result columns.
        output_rows: what becomes of a row.
        settings: those of the job, which are the schema's metadata.
        scored: whether the source has the result columns of this job; otherwise input columns of these names are
            renamed.
        messages: whether texts are messages (``align``).
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    text = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if messages else pa.string()
    if output_rows == "pairs":
        columns = [(name, text) for name in ("prompt", "chosen", "rejected")]
        return pa.schema([*columns, ("margin", pa.float32())], {"ranker": json.dumps(settings)})
    with opened(part.source) as file:
        schema = parquet.read_schema(file)
    added = {} if scored else {prefix + name: kind for name, kind in arrow_types().items()}
    added |= {"best": text} if output_rows == "best" else {}
    names = rename_collisions(dict.fromkeys(schema.names), added)
    fields = [field.with_name(name) for field, name in zip(schema, names, strict=True)]
    fields += [pa.field(name, kind) for name, kind in added.items()]
    return pa.schema(fields, {**(schema.metadata or {}), b"ranker": json.dumps(settings).encode()})


WRITTEN: Final[Mapping[OutputRows, Mapping[str, str]]] = {
    "rows": {},
    "best": {"best": "assistant"},
    "pairs": {"prompt": "user", "chosen": "assistant", "rejected": "assistant"},
}
"""Columns of texts that a selection writes, and the role of their texts as messages."""


def unwritable(row: Row, output_rows: OutputRows) -> str | None:
    """Why a selected row cannot be written to Parquet, whose messages hold role and content; None where it can."""
    for name in WRITTEN[output_rows]:
        for message in row[name] if isinstance(row[name], list) else ():
            more = sorted(message.keys() - {"role", "content"})
            if more or not isinstance(message["content"], str):
                return (
                    f"{name}: messages in Parquet hold role and content as text, and this one holds "
                    f"{', '.join(more) or 'parts'}; give JSON lines as the input, so that JSON lines are written"
                )
    return None


def align(rows: Sequence[Row], output_rows: OutputRows) -> bool:
    """Write the texts of selected rows as messages, in place, where one of them is messages; whether they are now."""
    columns = WRITTEN[output_rows]
    if not any(isinstance(row[name], list) for row in rows for name in columns):
        return False
    for row in rows:
        for name, role in columns.items():
            if isinstance(row[name], str):
                row[name] = [{"role": role, "content": row[name]}]
    return True


def write(path: Path, rows: Sequence[Row], schema: Any, note: Callable[[str], None] = lambda digest: None) -> None:
    """Write the rows of a part in one step.

    Args:
        path: the part's file.
        rows: the output rows.
        schema: the Arrow schema; None writes JSON lines.
        note: called with the file's SHA-256 before the file is renamed to ``path``, so that no part exists without its
            facts.
    """
    with draft_file(path) as draft:
        if schema is None:
            draft.write_bytes("".join(line_of(row) + "\n" for row in rows).encode())
        else:
            _parquet(draft, rows, schema)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note(digest)


def note(folder: Path, part: Part, facts: Mapping[str, Any]) -> None:
    """Write the facts of a part in one step."""
    (folder / FACTS).mkdir(exist_ok=True)
    write_text(folder / FACTS / f"{part.name}.json", json.dumps(facts, sort_keys=True) + "\n")


def facts(folder: Path) -> list[dict[str, Any]]:
    """The facts of all finished parts, in order.

    Raises:
        JobError: a file that is damaged.
    """
    return [_facts_in(path) for path in sorted((folder / FACTS).glob("part-*.json"))]


def _facts_in(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, kind in NOTED.items() if not isinstance(values[name], kind)]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        wrong = [type(error).__name__]
    if wrong:
        raise JobError(
            f"{path}: not the record of a part ({wrong[0]}); delete it and {path.stem}.* in {path.parent.parent}, and "
            "the same ranker filter command writes them again"
        )
    facts: dict[str, Any] = values
    return facts


def finish(folder: Path) -> None:
    """Write the facts of all parts to ``_manifest.jsonl`` and remove the files that dead workers left."""
    same = [{name: value for name, value in part.items() if name not in MEASURED} for part in facts(folder)]
    write_text(folder / MANIFEST, "".join(json.dumps(part, sort_keys=True) + "\n" for part in same))
    for left in (path for pattern in LEFT for path in folder.glob(pattern)):
        with suppress(FileNotFoundError):  # another worker has just renamed it
            if is_dead(left) or time.time() - left.stat().st_mtime >= STALE or left.suffix == ".lease":
                left.unlink(missing_ok=True)


def _parquet(draft: Path, rows: Sequence[Row], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft, write_page_checksum=True)
