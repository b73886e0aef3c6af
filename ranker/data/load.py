"""Labelled records of files and datasets."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from ranker.data.files import Row, read_rows
from ranker.data.formats import Columns, UnusedColumns, check_columns, parse_preference
from ranker.data.known_datasets import HUB, HubDataset
from ranker.data.sample import build
from ranker.errors import ConfigError, DataError, nearest
from ranker.extras import require
from ranker.records import BadRow, Preference

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
AnswerKey = tuple[str, tuple[str, ...]]


@dataclass(slots=True)
class Loaded:
    """Records, and the counts and first reasons of rows that were left out."""

    preferences: list[Preference] = field(default_factory=list)
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    unusable: int = 0
    usable: int = 0
    """Records kept so far, without single answers whose prompt has no other answer yet."""
    answers: Counter[AnswerKey] = field(default_factory=Counter)

    def add(self, preference: Preference, single: bool) -> None:
        """Keep a record, or count it as unusable when it holds no comparison (with ``single``: no label)."""
        lone = single or len(preference.candidates) == 1  # others of its prompt may follow
        labels = preference.labels() if lone else [target for _, _, target in preference.pairs()]
        if not any(value == value for values in labels for value in values):
            self.unusable += 1
            return
        self.preferences.append(preference)
        if single or not lone:
            self.usable += 1
        else:
            key = _answer_key(preference)
            self.answers[key] += 1
            self.usable += {1: 0, 2: 2}.get(self.answers[key], 1)

    def drop_incomparable(self) -> None:
        """Count and leave out answers that stayed alone with their prompt."""
        kept = [preference for preference in self.preferences if len(preference.candidates) > 1]
        self.unusable += len(self.preferences) - len(kept)
        self.preferences = kept

    def skip(self, error: DataError) -> None:
        """Count a bad row and keep the first few reasons."""
        self.skipped += 1
        if len(self.reasons) < 5:
            self.reasons.append(str(error))


def load_preferences(
    sources: Sequence[str],
    *,
    columns: Columns | None = None,
    on_error: OnError = "raise",
    limit: int | None = None,
    single: bool = False,
    streaming: bool = False,
) -> Loaded:
    """Read labelled rows from files or dataset names, in order.

    A name that is not a file is ``name[:split]`` of ``known_datasets.HUB`` or of the ``datasets`` library. Rows without
    a comparison (with ``single``: without a label) are counted as ``unusable`` and left out.

    Args:
        sources: paths (.jsonl, .jsonl.gz, .jsonl.zst, .parquet), dataset names, or ``sample``, ``sample:validation``
            and ``sample:test``, the rows that come with the package.
        columns: names of the columns where they differ from the known ones.
        on_error: ``raise`` stops at the first bad row, ``skip`` counts it.
        limit: most rows in total. Rows that are left out do not count; single answers count once there are two to
            their prompt.
        single: labels of single answers are enough; no comparison is needed. Otherwise single answers to one prompt
            become one list.
        streaming: read datasets of the hub row by row, so that with ``limit`` only used rows are fetched.

    Raises:
        DataError: a bad row under ``raise``, or no record at all.
    """
    check_columns(columns or {})
    loaded = Loaded()
    unused = UnusedColumns()
    for where, row in chain.from_iterable(_rows(source, streaming) for source in sources):
        if limit is not None and loaded.usable >= limit:
            break
        try:
            loaded.add(_preference(row, where, columns, unused), single)
        except DataError as error:
            if on_error == "raise":
                raise
            loaded.skip(error)
    unused.say()
    if not single:
        loaded.preferences = merged_answers(loaded.preferences)
        loaded.drop_incomparable()
    if loaded.skipped:
        logger.warning("%d bad rows skipped, the first: %s", loaded.skipped, loaded.reasons[0])
    if loaded.unusable:
        logger.warning("%d rows left out: they hold no comparison%s", loaded.unusable, " or label" if single else "")
    if not loaded.preferences:
        reason = loaded.reasons[0] if loaded.reasons else f"{loaded.unusable} rows had no comparison"
        raise DataError(", ".join(sources), "rows", f"expected at least one labelled comparison, got none ({reason})")
    return loaded


def merged_answers(preferences: Sequence[Preference]) -> list[Preference]:
    """Single answers to one prompt as one list, so that they can be compared; other records stay as they are.

    A list stands where its first answer stood. Answers whose labels have other names are not merged.
    """
    lists: dict[AnswerKey, list[Preference]] = {}
    order: list[list[Preference]] = []
    for preference in preferences:
        if len(preference.candidates) != 1:
            order.append([preference])
            continue
        key = _answer_key(preference)
        if key not in lists:
            order.append(lists.setdefault(key, []))
        lists[key].append(preference)
    return [part[0] if len(part) == 1 else _merged(part) for part in order]


def _answer_key(preference: Preference) -> AnswerKey:
    """Equal for single answers that belong to one list."""
    return repr(preference.prompt), preference.tasks


def _merged(answers: Sequence[Preference]) -> Preference:
    return replace(
        answers[0],
        candidates=tuple(answer.candidates[0] for answer in answers),
        scores=tuple(answer.scores[0] for answer in answers),
        spans=(),
    )


def _preference(row: Row | BadRow, where: str, columns: Columns | None, unused: UnusedColumns) -> Preference:
    if isinstance(row, BadRow):
        raise row.error
    return parse_preference(row, where, columns, unused)


def mixed(parts: Sequence[Sequence[Preference]], weights: Sequence[float], seed: int) -> list[Preference]:
    """Rows of several sources, repeated by weight: 1 once, 0.5 a random half, 2 twice.

    Raises:
        ConfigError: not one weight per source, or one that is negative or not finite.
    """
    if len(weights) != len(parts) or not all(0 <= weight < math.inf for weight in weights):
        raise ConfigError(f"expected one weight >= 0 per source of data.train ({len(parts)}), got {list(weights)}")
    rng = random.Random(seed)
    rows: list[Preference] = []
    for part, weight in zip(parts, weights, strict=True):
        rows += list(part) * int(weight) + rng.sample(list(part), round((weight % 1) * len(part)))
    return rows


def _sample(source: str) -> Iterator[tuple[str, Row | BadRow]]:
    """Rows of ``sample`` or ``sample:split``, generated here."""
    split = source.partition(":")[2] or "train"
    if split not in build.SIZES:
        raise DataError(source, "source", f"expected sample:{', sample:'.join(build.SIZES)}")
    for row in build.rows(split):
        yield row["id"], row


def _rows(source: str, streaming: bool) -> Iterator[tuple[str, Row | BadRow]]:
    if source.partition(":")[0] == "sample":
        yield from _sample(source)
        return
    if Path(source).suffix in (".jsonl", ".gz", ".zst", ".parquet", ".json") or Path(source).exists():
        yield from read_rows(source)
        return
    name, _, split = source.partition(":")
    known = HUB.get(name, HubDataset(name, "as its card says", (), dict))
    options = {"split": split or known.split, "revision": known.revision, "streaming": streaming}
    try:
        dataset = require("datasets").load_dataset(known.path, known.config, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            source, "source", f"expected a file or a dataset's name{nearest(name, HUB)} ({reason:.200})"
        ) from error
    logger.info("%s: %s, licence %s", source, known.path, known.licence)
    for number, row in enumerate(known.gather(dataset) if known.gather else dataset, 1):
        where = f"{source}:{number}"
        adapted = _adapted(known, row, where)
        if adapted is not None:
            yield where, adapted


def _adapted(known: HubDataset, row: Row, where: str) -> Row | BadRow | None:
    try:
        return known.adapt(row)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        fields = ", ".join(known.columns) or "columns"
        reason = f"expected {fields} as {known.path} has them ({type(error).__name__}: {error})"
        return BadRow(where, known.columns[0] if known.columns else "row", reason)
