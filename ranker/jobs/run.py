"""A job over many files: every part is scored once, whoever does it, and what is selected of it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.batch import BatchScorer
from ranker.data.files import Row, read_rows
from ranker.errors import ConfigError, DataError
from ranker.jobs import parts
from ranker.jobs.leases import Lease
from ranker.jobs.plan import PART_ROWS, Part, Plan, Reader, begun, expanded, made, write
from ranker.jobs.select import Select, Selection, selector
from ranker.jobs.sketch import Sketch
from ranker.records import Group
from ranker.scorer import GroupScores, failed

BATCH: Final = 1024
"""Rows that are scored between two signs of life."""

SCORED: Final = "_scored"
"""Where all rows lie scored when only the best share of them is kept."""

Progress = Callable[[int], object]
Found = tuple[Row, Group | DataError, GroupScores]
Rows = Sequence[tuple[str, Row | DataError]]


@dataclass(frozen=True, slots=True)
class Done:
    """The job's parts, those that this worker did, and of these the rows read, written and with an error."""

    parts: int = 0
    own: int = 0
    read: int = 0
    written: int = 0
    errors: int = 0


def score(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    *,
    part_rows: int = PART_ROWS,
    selection: Selection | None = None,
    progress: Progress = lambda rows: None,
) -> Done:
    """Score files into ``folder``, one file per part, going on where an earlier worker stopped.

    Rows keep their order and columns and gain those of ``BatchScorer``. With a selection only what is selected is
    written, and rows with an error go to ``errors-*.jsonl``, so that nothing is lost. ``_manifest.jsonl`` has the hash
    of every part, ``_SUCCESS`` is written when all are there. Several workers, on one machine or many, may do the same
    job in one folder.

    Args:
        scorer: the model and the columns.
        inputs: files and globs (.jsonl, .jsonl.gz, .jsonl.zst, .parquet).
        folder: where parts go.
        part_rows: rows of a part, which is what a worker loses when it dies.
        selection: which rows come out, and as what.
        progress: called with the number of rows after every batch.

    Raises:
        JobError: the folder holds another job; the field that differs is named.
        DataError: an input is missing, damaged, or changed while it was read.
    """
    if part_rows < 1:
        raise ConfigError(f"expected at least one row in a part, got {part_rows}")
    plan = begun(made(expanded(inputs), part_rows, _settings(scorer, selection)), folder)
    return _Job(scorer, plan, folder, selection, _scored, progress).run()


def top(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    share: float,
    *,
    part_rows: int = PART_ROWS,
    selection: Selection = Selection(),  # noqa: B008  frozen
    progress: Progress = lambda rows: None,
) -> Done:
    """Keep the best ``share`` of all rows by their best candidate, and of these what ``selection`` keeps.

    All rows are scored into ``folder/_scored`` first, as ``score`` does; the threshold comes from counts of their
    scores (``sketch``), so that what ties with the last on 16 bits is kept too. While other workers still score,
    nothing is selected: start again when they are done.

    Raises:
        ConfigError: a share outside (0, 1].
        JobError: as in ``score``.
        DataError: as in ``score``, or no row could be scored.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"expected a share in (0, 1], got {share}")
    done = score(scorer, inputs, folder / SCORED, part_rows=part_rows, progress=progress)
    if not (folder / SCORED / parts.SUCCESS).exists():
        return done
    scored = [str(path) for path in sorted((folder / SCORED).glob("part-*"))]
    sketch = Sketch()
    for _, row in chain.from_iterable(map(read_rows, scored)):
        scores = None if isinstance(row, DataError) else row[f"{scorer.prefix}scores"]
        sketch.add([max(scores)] if scores else [])
    if not sketch.n:
        raise DataError(", ".join(inputs), "rows", "expected at least one row that can be scored")
    keep = f"score >= {sketch.threshold(share)!r}" + (f" and ({selection.keep})" if selection.keep else "")
    plan = begun(made(scored, part_rows, _settings(scorer, selection) | {"share": share}), folder)
    return _Job(scorer, plan, folder, replace(selection, keep=keep), _known, progress).run()


def _settings(scorer: BatchScorer, selection: Selection | None) -> dict[str, Any]:
    return {
        "model": scorer.digest or scorer.model, "columns": scorer.columns, "prefix": scorer.prefix,
        "options": {name: repr(value) for name, value in sorted(scorer.options.items())},
        "selection": None if selection is None else asdict(selection),
    }  # fmt: skip


class _Job:
    """A worker's share of a job."""

    def __init__(
        self,
        scorer: BatchScorer,
        plan: Plan,
        folder: Path,
        selection: Selection | None,
        find: Callable[[BatchScorer, Rows], list[Found]],
        progress: Progress,
    ) -> None:
        self.scorer, self.plan, self.folder, self.find, self.progress = scorer, plan, folder, find, progress
        self.make = "rows" if selection is None else selection.make
        self.select: Select | None = None if selection is None else selector(selection)
        self.reader = Reader()

    def run(self) -> Done:
        """Do what no one else does; mark the job when all is there."""
        done = Done(parts=sum(1 for _ in self.plan.parts()))
        for part in self.plan.parts():
            target, lease = parts.path_of(self.folder, part), Lease(self.folder / f".{part.name}.lease")
            if target.exists():
                lease.release()  # of a worker that died between the two
                continue
            if not lease.take():
                continue
            try:
                if not target.exists():  # another worker may have finished it between the two looks
                    done = self._part(part, target, lease, done)
            finally:
                lease.release()
        if all(parts.path_of(self.folder, part).exists() for part in self.plan.parts()):
            write(self.folder / parts.SUCCESS, "")
        return done

    def _part(self, part: Part, target: Path, lease: Lease, done: Done) -> Done:
        kept: list[Row] = []
        bad: list[Row] = []
        rows = self.reader.rows(part)
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            for row, group, result in self.find(self.scorer, chunk):
                done = replace(done, errors=done.errors + (result.error is not None))
                if self.select is None:
                    kept.append(row)
                elif result.error is not None or not isinstance(group, Group):
                    bad.append(row)
                elif (selected := self.select(row, group, result)) is not None:
                    kept.append(selected)
            lease.beat()
            self.progress(len(chunk))
        if bad:
            parts.write(target.with_name(f"errors-{part.number:06d}.jsonl"), part, bad, None)
        schema = parts.schema_of(part, self.scorer.prefix, self.make)
        parts.note(self.folder, parts.write(target, part, kept, schema))
        return replace(done, own=done.own + 1, read=done.read + len(rows), written=done.written + len(kept))


def _scored(scorer: BatchScorer, chunk: Rows) -> list[Found]:
    """Rows with their results, their groups and their scores; a line that is no row is kept as ``input``."""
    groups = [row if isinstance(row, DataError) else scorer.group(row, where) for where, row in chunk]
    found: list[Found] = []
    for (_, row), group, result in zip(chunk, groups, scorer.score(groups), strict=True):
        columns = {"input": row.raw} if isinstance(row, DataError) else dict(row)
        found.append((columns | scorer.results(result), group, result))
    return found


def _known(scorer: BatchScorer, chunk: Rows) -> list[Found]:
    """Rows that have their results already."""
    found: list[Found] = []
    for where, row in chunk:
        if isinstance(row, DataError):
            raise row
        given = {name: value for name, value in row.items() if not name.startswith(scorer.prefix)}
        group = scorer.group(given, where)
        error = row[f"{scorer.prefix}error"]
        if isinstance(group, DataError) or error is not None:
            found.append((row, group, failed(Group("", ()), str(error or group))))
            continue
        scores, truncated = (row[scorer.prefix + name] for name in ("scores", "truncated"))
        found.append((row, group, GroupScores(np.array(scores, np.float32), np.array(truncated, np.bool_))))
    return found
