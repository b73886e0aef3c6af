"""The input of a job, its parts, and the check that a folder holds the same job."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ranker.atomic import create_text
from ranker.data.files import Row, opened, remote
from ranker.data.shapes import RowShape
from ranker.data.sources import Source, joined_dataset
from ranker.errors import ConfigError, DataError, JobError
from ranker.progress import counted, stage
from ranker.records import BadRow

PLAN: Final = "_plan.json"
VERSION: Final = 2
PART_ROWS: Final = 5000
"""Rows of a part; a process that dies loses at most one part."""

SCORED: Final = "_scored"
"""The subfolder of all scored rows, from which others are selected."""

FOLLOWED: Final = ("max_tokens_per_forward",)
"""Settings that all workers of a job take from its plan, so that no score depends on who did a part."""

BLOCK: Final = 1 << 20

NAMES: Final = {
    "sources": "the input",
    "part_rows": "--part-rows",
    "settings.model": "the model",
    "settings.columns": "--column",
    "settings.options": "its options",
    "settings.engine": "the engine, so that all scores are computed alike",
    "settings.precision": "the model's precision, or its --device",
    "settings.share": "--keep-top",
    "settings.selection.keep": "--keep",
    "settings.selection.make": "--best-of or --pairs",
    "settings.selection.drop_ties": "--drop-ties",
    "settings.input": "the input",
}
"""What users call a plan's fields, by the beginning of the field's name."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file at the start of the job.

    ``modified`` is in nanoseconds, 0 where it is unknown; ``dataset`` is the known dataset that was named for it.
    """

    path: str
    bytes: int
    sha256: str
    rows: int
    modified: int = 0
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``first`` to ``first + rows`` of a file; ``number`` counts over the whole job."""

    number: int
    source: str
    first: int
    rows: int
    dataset: str = ""

    @property
    def name(self) -> str:
        """The name of the part's file, without its extension."""
        return f"part-{self.number:06d}"

    @property
    def shape(self) -> RowShape | None:
        """The shape of its rows, where a known dataset was named."""
        return Source(self.source, self.dataset).shape

    @property
    def is_parquet(self) -> bool:
        """Whether its output is Parquet: that of Parquet input whose rows are not joined into others."""
        known = Source(self.source, self.dataset).known
        return self.source.endswith(".parquet") and (known is None or known.gather is None)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole job: its input, and the ``settings`` that decide its output."""

    sources: tuple[InputFile, ...]
    part_rows: int
    settings: Mapping[str, Any]
    version: int = VERSION

    def parts(self) -> Iterator[Part]:
        """All parts, in the order of the input."""
        number = 0
        for source in self.sources:
            for first in range(0, source.rows, self.part_rows):
                yield Part(number, source.path, first, min(self.part_rows, source.rows - first), source.dataset)
                number += 1


def expanded(inputs: Sequence[str]) -> list[Source]:
    """The files of names, folders and patterns: each once, with absolute paths.

    Raises:
        DataError: an input without a file.
        ConfigError: an unknown dataset before ``=``.
    """
    files: dict[str, Source] = {}
    for text in inputs:
        source = Source.parse(text)
        for name in source.files():
            path = name if remote(name) else os.path.abspath(name)
            files.setdefault(path, Source(path, source.dataset))
    return list(files.values())


def make_plan(files: Sequence[Source], part_rows: int, settings: Mapping[str, Any], folder: Path) -> Plan:
    """A plan with the rows and hashes of the input.

    Files with the size and time of the folder's plan are not read again.

    Raises:
        DataError: a file that is missing or damaged.
    """
    plan = read(folder)
    seen = {} if plan is None else {(file.path, file.bytes, file.modified): file for file in plan.sources}
    sources = []
    with stage("reading the input", None):
        for source in files:
            file = seen.get((source.path, *stamp(source.path))) or _read(source)
            sources.append(replace(file, dataset=source.dataset or file.dataset))
    return Plan(tuple(sources), part_rows, dict(settings))


def read(folder: Path) -> Plan | None:
    """The plan of the job in ``folder``; None without a job.

    Raises:
        JobError: the plan's file is damaged, or from another version.
    """
    file = folder / PLAN
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        sources = tuple(InputFile(**source) for source in values["sources"])
        plan = Plan(sources, int(values["part_rows"]), dict(values["settings"]), int(values["version"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise JobError(f"{file}: not the plan of a job ({type(error).__name__}); choose a new folder") from error
    if plan.version != VERSION or plan.part_rows < 1:
        raise JobError(
            f"{file}: written by another version of this package (plan {plan.version}, this is {VERSION}); finish the "
            "job with that one, or choose a new folder"
        )
    return plan


def digest_of(path: Path) -> str:
    """SHA-256 of a local file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: str) -> tuple[int, int]:
    """Size and time of a local file; (-1, -1) if it cannot be read."""
    try:
        status = Path(path).stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read(source: Source) -> InputFile:
    path = source.path
    modified = max(0, stamp(path)[1])
    rows = sum(1 for _ in counted(source.rows()))
    digest, size = hashlib.sha256(), 0
    with opened(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return InputFile(path, size, digest.hexdigest(), rows, modified, joined_dataset(source))


def start_or_resume(plan: Plan, folder: Path) -> Plan:
    """Write the plan to a new folder, or check that the folder holds the same job.

    Settings in ``FOLLOWED`` are those of the worker that started the job.

    Returns:
        The folder's plan.

    Raises:
        ConfigError: the folder is in an object store.
        JobError: the folder holds another job (the message names the field that differs), or files of something else.
    """
    if ":/" in str(folder):  # a Path drops one slash of "://"
        raise ConfigError(f"{folder}: expected a folder that can rename files in one step; copy it there when finished")
    file = folder / PLAN
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith((".", "_"))]
        if foreign and not file.exists():
            raise JobError(f"{folder}: holds files of something else ({foreign[0]}); choose a new folder")
        if create_text(file, json.dumps(asdict(plan), indent=1, sort_keys=True) + "\n"):
            return plan
    earlier = read(folder)
    if earlier is None:
        return plan
    followed = {name: value for name, value in earlier.settings.items() if name in FOLLOWED}
    plan = replace(plan, settings={**plan.settings, **followed})
    check_same(folder, earlier, plan)
    return plan


def check_same(folder: Path, earlier: Plan, plan: Plan) -> None:
    """Refuse to continue another job.

    Raises:
        JobError: naming the first field that differs, and what to do.
    """
    known = dict(_flat(json.loads(json.dumps(asdict(earlier)))))
    now = dict(_flat(json.loads(json.dumps(asdict(plan)))))
    # Another model has another precision and engine too; the model is what the user changed.
    for name in sorted({**now, **known}, key=lambda name: name != "settings.model"):
        before, value = known.get(name, "nothing"), now.get(name, "nothing")
        if before != value and not name.endswith(".modified"):
            option = next((label for start, label in NAMES.items() if name.startswith(start)), "it")
            raise JobError(
                f"{folder}: was started with {name} {before!r:.80}, now {value!r:.80}; restore "
                f"{option}, or choose a new folder"
            )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
        return
    for key, inner in items:
        yield from _flat(inner, f"{name}.{key}".lstrip("."))


class Reader:
    """Reads the rows of parts; for parts in order it continues in the file where the previous part ended."""

    def __init__(self) -> None:
        self._path = ""
        self._at = 0
        self._rows: Iterator[tuple[str, Row | BadRow]] = iter(())

    def rows(self, part: Part) -> list[tuple[str, Row | BadRow]]:
        """The rows of a part.

        Raises:
            DataError: the file has become shorter.
        """
        if part.source != self._path or part.first < self._at:
            self._path = part.source
            self._at = 0
            self._rows = Source(part.source).rows()
        rows = list(islice(self._rows, part.first - self._at, part.first - self._at + part.rows))
        self._at = part.first + len(rows)
        if len(rows) < part.rows:
            raise DataError(part.source, "rows", f"expected {part.first + part.rows} rows, the file has become shorter")
        return rows
