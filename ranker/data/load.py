"""Labelled records of files and datasets."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal

from ranker.data.files import Row, remote
from ranker.data.formats import parse_preference
from ranker.data.known_datasets import HUB
from ranker.data.read_row import Columns, UnusedColumns, check_columns
from ranker.data.readers import Rows
from ranker.data.sample import build
from ranker.data.shapes import RowShape
from ranker.data.sources import Source, is_file_like, joined, joined_dataset, known_datasets
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
    alike: int = 0
    """Records in which equal answers have different labels."""
    first_alike: str = ""

    def add(self, preference: Preference, single: bool) -> None:
        """Keep a record, or count it as unusable when it holds no comparison (with ``single``: no label)."""
        lone = single or len(preference.candidates) == 1  # others of its prompt may follow
        labels = preference.labels() if lone else [target for _, _, target in preference.pairs()]
        if not any(value == value for values in labels for value in values):
            self.unusable += 1
            return
        self.preferences.append(preference)
        if not lone and _equal_answers_differ(preference):
            self.first_alike = self.first_alike or preference.id
            self.alike += 1
        if single or not lone:
            self.usable += 1
        elif preference.prompt:
            key = _answer_key(preference)
            self.answers[key] += 1
            self.usable += {1: 0, 2: 2}.get(self.answers[key], 1)

    def compare(self, fall_back: bool) -> None:
        """Merge the answers to one prompt and leave out those that stay alone; with ``fall_back`` not if all do."""
        merged = merged_answers(self.preferences)
        kept = [preference for preference in merged if len(preference.candidates) > 1]
        if fall_back and not kept:
            return
        self.unusable += len(merged) - len(kept)
        self.preferences = kept

    def warn(self, single: bool) -> None:
        """Log what was left out, and what nothing can be learned from."""
        if self.skipped:
            more = "" if self.skipped == len(self.reasons) else "; ..."
            logger.warning("%d bad rows skipped: %s%s", self.skipped, "; ".join(self.reasons), more)
        if self.unusable:
            logger.warning("%d rows left out: they hold no comparison%s", self.unusable, " or label" if single else "")
        if self.alike:
            logger.warning(
                "%d of %d rows give different labels to equal answers (as where chosen is rejected), first '%s': they "
                "stay, but no model can order these answers",
                self.alike,
                len(self.preferences),
                self.first_alike,
            )

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
    fall_back: bool = False,
    streaming: bool = False,
) -> Loaded:
    """Read labelled rows from files or dataset names, in order.

    A name that is not a file is ``name[:split]`` of ``known_datasets.HUB`` or of the ``datasets`` library;
    ``name=FILE`` is a copy of a known dataset. Rows without a comparison (with ``single``: without a label) are counted
    as ``unusable`` and left out. The licence of a known dataset is logged.

    Args:
        sources: files, folders and patterns (``ranker.data.readers``), dataset names, or ``sample``,
            ``sample:validation`` and ``sample:test``, the rows that come with the package.
        columns: names of the columns where they differ from the known ones.
        on_error: ``raise`` stops at the first bad row, ``skip`` counts it.
        limit: most rows in total. Rows that are left out do not count; single answers count once there are two to
            their prompt.
        single: labels of single answers are enough; no comparison is needed. Otherwise single answers to one prompt
            become one list.
        fall_back: take the labels of single answers where no row holds a comparison.
        streaming: read datasets of the hub row by row, so that with ``limit`` only used rows are fetched.

    Raises:
        DataError: a bad row under ``raise``, or no record at all.
    """
    check_columns(columns or {})
    loaded = Loaded()
    unused = UnusedColumns()
    for source in sources:
        shape = _shape(source, columns)
        for where, row in _rows(source, streaming):
            if limit is not None and loaded.usable >= limit:
                break
            try:
                loaded.add(_preference(row, where, columns, unused, shape), single)
            except DataError as error:
                if on_error == "raise":
                    raise
                loaded.skip(error)
    unused.say()
    warn_of_licences(sources)
    if not single:
        loaded.compare(fall_back)
    loaded.warn(single)
    if not loaded.preferences:
        reason = loaded.reasons[0] if loaded.reasons else f"{loaded.unusable} rows had no comparison"
        raise DataError(", ".join(sources), "rows", f"expected at least one labelled comparison, got none ({reason})")
    return loaded


def check_first_rows(sources: Sequence[str], columns: Columns | None = None) -> None:
    """Read the first row of every local file, so that a wrong name or column is found before long work begins.

    Args:
        sources: as in ``load_preferences``; those of standard input, of other machines and of the hub are not read.
        columns: as in ``load_preferences``.

    Raises:
        DataError: a file that is missing or not of its kind, or a first row that is not a labelled one.
        ConfigError: names of columns for a dataset whose columns are known.
    """
    check_columns(columns or {})
    for text in sources:
        shape = _shape(text, columns)
        if not is_file_like(text):
            continue
        source = Source.parse(text)
        if source.path == "-" or remote(source.path) or joined_dataset(source):
            continue
        for where, row in islice(source.rows(), 1):
            _preference(row, where, columns, UnusedColumns(), shape)


def merged_answers(preferences: Sequence[Preference]) -> list[Preference]:
    """Single answers to one prompt as one list, so that they can be compared; other records stay as they are.

    A list stands where its first answer stood. Answers whose labels have other names, and texts without a prompt, which
    nothing makes answers to the same, are not merged.
    """
    lists: dict[AnswerKey, list[Preference]] = {}
    order: list[list[Preference]] = []
    for preference in preferences:
        if len(preference.candidates) != 1 or not preference.prompt:
            order.append([preference])
            continue
        key = _answer_key(preference)
        if key not in lists:
            order.append(lists.setdefault(key, []))
        lists[key].append(preference)
    return [part[0] if len(part) == 1 else _merged(part) for part in order]


def _equal_answers_differ(preference: Preference) -> bool:
    """Whether an answer is there twice, with different labels."""
    if len(set(preference.candidates)) == len(preference.candidates):
        return False
    texts = preference.candidates
    return any(texts[i] == texts[j] and any(p == p and p != 0.5 for p in target) for i, j, target in preference.pairs())


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


def _preference(
    row: Row | BadRow, where: str, columns: Columns | None, unused: UnusedColumns, shape: RowShape | None
) -> Preference:
    if isinstance(row, BadRow):
        raise row.error
    return parse_preference(row, where, columns, unused, shape)


_warned: Final[set[str]] = set()
"""Datasets of which ``warn_of_licences`` has warned."""


def warn_of_licences(sources: Sequence[str]) -> None:
    """Say once per known dataset what its card says of its licence."""
    for text, known in known_datasets(sources).items():
        if known.path not in _warned:
            _warned.add(known.path)
            terms = "licence %s as its card says; check that it fits your use"
            logger.warning(f"%s: %s, {terms}", text, known.path, known.licence)


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


def _sample(source: str) -> Rows:
    """Rows of ``sample`` or ``sample:split``, generated here."""
    split = source.partition(":")[2] or "train"
    if split not in build.SIZES:
        raise DataError(source, "source", f"expected sample:{', sample:'.join(build.SIZES)}")
    for row in build.rows(split):
        yield row["id"], row


def _shape(source: str, columns: Columns | None) -> RowShape | None:
    """The shape of the rows of a dataset that was named.

    Raises:
        DataError: the source has no file.
        ConfigError: names of columns for a dataset whose columns are known.
    """
    if source.partition(":")[0] == "sample":
        return None
    if not is_file_like(source):
        known = HUB.get(source.partition(":")[0])
        return None if known is None or known.gather is not None or columns else known.shape
    named = Source.parse(source)
    named.check(columns)
    return named.shape


def _rows(source: str, streaming: bool) -> Rows:
    if source.partition(":")[0] == "sample":
        return _sample(source)
    if is_file_like(source):
        return Source.parse(source).rows()
    return _hub_rows(source, streaming)


def _hub_rows(source: str, streaming: bool) -> Rows:
    """Rows of ``name[:split]`` from the ``datasets`` library."""
    name, _, split = source.partition(":")
    known = HUB.get(name)
    path, config = (name, None) if known is None else (known.path, known.config)
    split = split or ("train" if known is None else known.split)
    revision = "main" if known is None else known.revision
    load = require("datasets").load_dataset
    try:
        dataset = load(path, config, split=split, revision=revision, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            source, "source", f"expected a file or a dataset's name{nearest(name, HUB)} ({reason:.200})"
        ) from error
    yield from joined(((f"{source}:{number}", row) for number, row in enumerate(dataset, 1)), source)
