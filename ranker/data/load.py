"""From names of files and datasets to labelled records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from ranker.data.files import Row, read_rows
from ranker.data.formats import Columns, preference_of
from ranker.errors import DataError
from ranker.extras import require
from ranker.records import Preference

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]


@dataclass(slots=True)
class Loaded:
    """Records and what was left out, with reasons (the first few) and counts."""

    preferences: list[Preference] = field(default_factory=list)
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    unusable: int = 0

    def add(self, preference: Preference) -> None:
        """Keep a record, or count it when it holds no comparison."""
        if any(t == t for _, _, target in preference.pairs() for t in target):
            self.preferences.append(preference)
        else:
            self.unusable += 1

    def skip(self, error: DataError) -> None:
        """Count a bad row; the first few reasons are kept."""
        self.skipped += 1
        if len(self.reasons) < 5:
            self.reasons.append(str(error))


def load_preferences(
    sources: Sequence[str], *, columns: Columns | None = None, on_error: OnError = "raise", limit: int | None = None
) -> Loaded:
    """Read labelled rows from files or ``datasets`` names, in order.

    A name that is no file is ``name[:split]`` of the ``datasets`` library. Rows with fewer than two candidates or no
    comparison between them are counted as ``unusable`` and left out.

    Args:
        sources: paths (.jsonl, .jsonl.gz, .jsonl.zst, .parquet) or dataset names.
        columns: names of the columns where they differ from the known ones.
        on_error: ``raise`` stops at the first bad row, ``skip`` counts it.
        limit: most records in all.

    Raises:
        DataError: a bad row under ``raise``, or no record at all.
    """
    loaded = Loaded()
    for where, row in chain.from_iterable(map(_rows, sources)):
        if limit is not None and len(loaded.preferences) >= limit:
            break
        try:
            loaded.add(_preference(row, where, columns))
        except DataError as error:
            if on_error == "raise":
                raise
            loaded.skip(error)
    if loaded.skipped:
        logger.warning("%d bad rows skipped, the first: %s", loaded.skipped, loaded.reasons[0])
    if not loaded.preferences:
        reason = loaded.reasons[0] if loaded.reasons else f"{loaded.unusable} rows had no comparison"
        raise DataError(", ".join(sources), "rows", f"expected at least one labelled comparison, got none ({reason})")
    return loaded


def _preference(row: Row | DataError, where: str, columns: Columns | None) -> Preference:
    if isinstance(row, DataError):
        raise row
    return preference_of(row, where, columns)


def _rows(source: str) -> Iterator[tuple[str, Row | DataError]]:
    if Path(source).suffix in (".jsonl", ".gz", ".zst", ".parquet", ".json") or Path(source).exists():
        yield from read_rows(source)
        return
    name, _, split = source.partition(":")
    dataset = require("datasets").load_dataset(name, split=split or "train")
    for number, row in enumerate(dataset, 1):
        yield f"{source}:{number}", row
