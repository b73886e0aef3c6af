"""Labelled rows as the calls of the API take them: files, dataset names, or rows in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranker import atomic
from ranker.data.files import finite
from ranker.data.formats import Columns, UnusedColumns, parse_preference
from ranker.data.load import load_preferences, merged_answers
from ranker.errors import ConfigError, DataError
from ranker.records import Preference

RowsLike = str | Path | Iterable[Mapping[str, Any]]
"""A file or dataset name, or rows: dicts, a ``datasets.Dataset``, anything that gives mappings."""


def preferences_of(rows: RowsLike, columns: Columns | None = None) -> list[Preference]:
    """Labelled records that hold a comparison; single answers to one prompt are one record.

    Raises:
        DataError: a bad row, named by its number.
        ConfigError: not a path and not rows.
    """
    if isinstance(rows, str | Path):
        return load_preferences([str(rows)], columns=columns).preferences
    unused = UnusedColumns()
    records = [parse_preference(row, f"row {number}", columns, unused) for number, row in enumerate(_mappings(rows))]
    unused.say()
    records = [record for record in merged_answers(records) if any(_known(target) for _, _, target in record.pairs())]
    if not records:
        raise DataError("rows", "rows", "expected at least one labelled comparison, got none")
    return records


def _known(target: Sequence[float]) -> bool:
    return any(value == value for value in target)


def checked_rows(rows: Iterable[Mapping[str, Any]], kind: str, columns: Columns | None = None) -> list[dict[str, Any]]:
    """Rows in memory, each of which is a labelled record.

    Raises:
        DataError: a bad row, named by its kind and number.
    """
    checked = [dict(row) for row in _mappings(rows)]
    for number, row in enumerate(checked):
        parse_preference(row, f"{kind} row {number}", columns)
    return checked


def name_of(rows: RowsLike) -> str:
    """What rows are called in reports."""
    return str(rows) if isinstance(rows, str | Path) else "rows in memory"


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Rows in memory as a file of JSON lines, so that a run that is resumed reads the same ones.

    Raises:
        ConfigError: not rows, or a value that no JSON can hold.
    """
    try:
        lines = [json.dumps(finite(dict(row)), ensure_ascii=False) for row in _mappings(rows)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected rows of texts, numbers and lists ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def is_rows(value: Any) -> bool:
    """Whether a value is rows in memory: a sequence of mappings, or a dataset of the ``datasets`` library."""
    if isinstance(value, str | Path | Mapping):
        return False
    if isinstance(value, Sequence):
        return bool(value) and not all(isinstance(source, str | Path) for source in value)
    return hasattr(value, "column_names") or _is_frame(value)


def _is_frame(value: Any) -> bool:
    """Whether a value is a pandas DataFrame, which is iterated by its columns."""
    return hasattr(value, "to_dict") and hasattr(value, "columns") and not isinstance(value, Mapping)


def _mappings(rows: Any) -> Iterable[Mapping[str, Any]]:
    if _is_frame(rows):
        rows = rows.to_dict("records")
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise ConfigError(f"expected a file, a dataset's name or a list of rows, got {type(rows).__name__}")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ConfigError(f"row {number}: expected a mapping of columns to values, got {type(row).__name__}")
        yield row
