"""Rows in memory: lists of dicts, Hugging Face datasets, pandas and polars frames, Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranker.data.files import Row
from ranker.data.readers import Rows
from ranker.data.sources import joined
from ranker.errors import ConfigError


def is_rows(value: Any) -> bool:
    """Whether a value is rows in memory, not the names of files."""
    if isinstance(value, str | Path | Mapping):
        return False
    if isinstance(value, Sequence):
        return bool(value) and not all(isinstance(source, str | Path) for source in value)
    return hasattr(value, "column_names") or hasattr(value, "columns")


def mappings(rows: Any) -> Iterator[Row]:
    """Rows in memory as dicts of Python's values; missing cells of frames are None.

    Raises:
        ConfigError: not rows, or one of them is not a mapping.
    """
    if isinstance(rows, Mapping):
        splits = ", ".join(map(str, rows))
        raise ConfigError(f"expected a file, a dataset's name or a list of rows, got a mapping of {splits:.80}")
    if isinstance(rows, str | bytes) or not (isinstance(rows, Iterable) or hasattr(rows, "to_pylist")):
        raise ConfigError(f"expected a file, a dataset's name or a list of rows, got {type(rows).__name__}")
    for number, row in enumerate(_iterated(rows), 1):
        if not isinstance(row, Mapping):
            raise ConfigError(f"row {number}: expected a mapping of columns to values, got {type(row).__name__}")
        yield plain(row)


def named_rows(rows: Any, kind: str = "row") -> Rows:
    """Rows in memory as ``ranker.data.readers`` gives those of files; they are numbered from 1.

    Raises:
        ConfigError: as in ``mappings``.
    """
    return joined(((f"{kind} {number}", row) for number, row in enumerate(mappings(rows), 1)), "rows in memory")


def _iterated(rows: Any) -> Iterable[Any]:
    if hasattr(rows, "to_pylist"):  # an Arrow table or batch, which is iterated by its columns
        return (row for batch in _batches(rows) for row in batch.to_pylist())
    if hasattr(rows, "iter_rows"):  # polars
        named: Iterable[Any] = rows.iter_rows(named=True)
        return named
    if hasattr(rows, "iterrows"):  # pandas, which is iterated by its columns too
        whole: Iterable[Any] = rows.astype(object).where(rows.notna(), None).to_dict("records")
        return whole
    iterated: Iterable[Any] = rows
    return iterated


def _batches(table: Any) -> Iterable[Any]:
    batches: Iterable[Any] = table.to_batches(max_chunksize=1024) if hasattr(table, "to_batches") else [table]
    return batches


def plain(value: Any) -> Any:
    """A value whose arrays and numbers of numpy, as Ray and pandas have them, are lists and numbers of Python."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):  # missing values of pandas
        return None
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
