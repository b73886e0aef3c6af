"""Labelled rows as the calls of the API take them: files, dataset names, or rows in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranker import atomic
from ranker.data.files import finite
from ranker.data.formats import parse_preference
from ranker.data.load import load_preferences, merged_answers
from ranker.data.read_row import Columns, UnusedColumns
from ranker.data.tables import mappings, named_rows
from ranker.errors import ConfigError, DataError
from ranker.records import BadRow, Preference

RowsLike = str | Path | Iterable[Mapping[str, Any]]
"""A file or dataset name, or rows: dicts, a ``datasets.Dataset``, a pandas or polars frame, a ``pyarrow.Table``."""


def preferences_of(rows: RowsLike, columns: Columns | None = None, *, single: bool = False) -> list[Preference]:
    """Labelled records that hold a comparison; single answers to one prompt are one record.

    Args:
        rows: see ``RowsLike``.
        columns: names of the columns where they differ from the known ones.
        single: take labels of single answers too, where no row holds a comparison.

    Raises:
        DataError: a bad row, named by its number.
        ConfigError: not a path and not rows.
    """
    if isinstance(rows, str | Path):
        return load_preferences([str(rows)], columns=columns, fall_back=single).preferences
    unused = UnusedColumns()
    labelled = []
    for where, row in named_rows(rows):
        if isinstance(row, BadRow):
            raise row.error
        labelled.append(parse_preference(row, where, columns, unused))
    unused.say()
    records = [record for record in merged_answers(labelled) if any(_known(target) for _, _, target in record.pairs())]
    if not records and single:
        records = [record for record in labelled if any(map(_known, record.labels()))]
    if not records:
        raise DataError("rows", "rows", "expected at least one labelled comparison, got none")
    return records


def _known(target: Sequence[float]) -> bool:
    return any(value == value for value in target)


def checked_rows(rows: Any, kind: str, columns: Columns | None = None) -> list[dict[str, Any]]:
    """Rows in memory, each of which is a labelled record.

    Raises:
        DataError: a bad row, named by its kind and number.
    """
    checked = []
    for where, row in named_rows(rows, f"{kind} row"):
        if isinstance(row, BadRow):
            raise row.error
        parse_preference(row, where, columns)
        checked.append(row)
    return checked


def name_of(rows: RowsLike) -> str:
    """What rows are called in reports."""
    return str(rows) if isinstance(rows, str | Path) else "rows in memory"


def write_rows(rows: Any, path: Path) -> Path:
    """Rows in memory as a file of JSON lines, so that a run that is resumed reads the same ones.

    Raises:
        ConfigError: not rows, or a value that no JSON can hold.
    """
    try:
        lines = [json.dumps(finite(row)) for row in mappings(rows)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected rows of texts, numbers and lists ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))
    return path
