"""A job over many files: every part is scored once, whoever does it, and what is selected of it is written."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.atomic import write_text
from ranker.batch_scorer import RESULTS, BatchScorer
from ranker.data.files import Row, read_rows, rename_collisions
from ranker.errors import ConfigError, DataError
from ranker.jobs import parts, summary
from ranker.jobs.leases import Lease
from ranker.jobs.plan import PART_ROWS, Part, Plan, Reader, begun, expanded, made, read
from ranker.jobs.select import Select, Selection, selector
from ranker.jobs.sketch import Sketch
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, failed

logger = logging.getLogger(__name__)

BATCH: Final = 1024
"""Rows that are scored together, and between two calls of ``progress``."""

SCORED: Final = "_scored"
"""Where all rows lie scored when only the best share of them is kept."""

Progress = Callable[[int], object]
Found = tuple[Row, Group | DataError, GroupScores]
Rows = Sequence[tuple[str, Row | DataError]]


@dataclass(frozen=True, slots=True)
class Done:
    """What was done here: parts, and of these the rows read, written and with an error."""

    parts: int = 0
    read: int = 0
    written: int = 0
    errors: int = 0

    def __add__(self, other: Done) -> Done:
        return Done(*(own + its for own, its in zip(astuple(self), astuple(other), strict=True)))


def score(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    *,
    part_rows: int = PART_ROWS,
    selection: Selection | None = None,
    progress: Progress = lambda rows: None,
    work: Work | None = None,
) -> Done:
    """Score files into ``folder``, one file per part, going on where an earlier worker stopped.

    Rows keep their order and columns and gain those of ``BatchScorer``. With a selection only what is selected is
    written, and rows with an error go to ``errors-*.jsonl``, so that nothing is lost. When all parts are there,
    ``_manifest.jsonl`` has their hashes, and ``_SUCCESS`` is written. Several workers, on one machine or many, may do
    the same job in one folder.

    Args:
        scorer: the model and the columns.
        inputs: files and globs (.jsonl, .jsonl.gz, .jsonl.zst, .parquet).
        folder: where parts go.
        part_rows: rows of a part, which is what a worker loses when it dies.
        selection: which rows come out, and as what.
        progress: called with the number of rows after every batch.
        work: who does the parts; default this process.

    Raises:
        ConfigError: no rows in a part, or an invalid selection.
        JobError: the folder holds another job; the field that differs is named.
        DataError: an input is missing, damaged, or has become shorter while it was read; or all rows failed, which
            ends the job without ``_SUCCESS``.
    """
    if selection is not None:
        selector(selection)  # raises for an invalid selection before any work starts
        if re.search(r"\bscore\b", selection.keep or "") and scorer.scorer.info.scores_are_relative:
            logger.warning(
                "this model compares answers of one prompt: its scores say little across prompts; use margin"
            )
    if part_rows < 1:
        raise ConfigError(f"expected at least one row in a part, got {part_rows}")
    plan = begun(made(expanded(inputs), part_rows, _settings(scorer, selection), folder), folder)
    return _finished(Job(scorer, plan, folder, selection, _scored), progress, work)


def top(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    share: float,
    *,
    part_rows: int = PART_ROWS,
    selection: Selection = Selection(),  # noqa: B008  frozen
    progress: Progress = lambda rows: None,
    work: Work | None = None,
) -> Done:
    """Keep the best ``share`` of all rows, and of these what ``selection`` keeps.

    Rows are compared by the score of their best candidate, with a model that compares answers by its margin above the
    next: scores of such a model say nothing across prompts. All rows are scored into ``folder/_scored`` first, as
    ``score`` does; the threshold comes from counts (``sketch``), so that what ties with the last on 16 bits is kept
    too. While other workers still score, nothing is selected: start again when they are done.

    Raises:
        ConfigError: a share outside (0, 1].
        JobError: as in ``score``.
        DataError: as in ``score``, or no row could be scored.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"expected a share in (0, 1], got {share}")
    selector(selection)
    done = score(scorer, inputs, folder / SCORED, part_rows=part_rows, progress=progress, work=work)
    if not (folder / SCORED / parts.SUCCESS).exists():
        return done
    scored = [str(path.absolute()) for path in sorted((folder / SCORED).glob("part-*"))]
    number, sketch = "margin" if scorer.scorer.info.scores_are_relative else "score", Sketch()
    for _, row in chain.from_iterable(map(read_rows, scored)):
        if isinstance(row, DataError) or row[f"{scorer.prefix}error"] is not None:
            continue
        scores = row[f"{scorer.prefix}scores"]
        found = row[f"{scorer.prefix}margin"] if number == "margin" else max(scores, default=None)
        sketch.add([] if found is None else [found])
    if not sketch.n:
        raise DataError(", ".join(inputs), "rows", "expected at least one row that can be compared")
    keep = f"{number} >= {sketch.threshold(share)!r}" + (f" and ({selection.keep})" if selection.keep else "")
    plan = begun(made(scored, part_rows, _settings(scorer, selection) | {"share": share}, folder), folder)
    return _finished(Job(scorer, plan, folder, replace(selection, keep=keep), _known), progress, None)


def _finished(job: Job, progress: Progress, work: Work | None) -> Done:
    done = (work or Job.run)(job, progress)
    if next(job.waiting(), None) is None:
        parts.finish(job.folder)
        found = summary.write_summary(job.folder, job.plan)
        if found.read and found.errors == found.read:
            raise DataError(str(job.folder), "error", f"all {found.read} rows failed; the first: {found.first_error}")
        write_text(job.folder / parts.SUCCESS, "")
    return done


def done_of(folder: Path) -> tuple[int, int]:
    """How many parts of the job in ``folder`` are done, and how many it has; (0, 0) where no job was begun."""
    plan = read(folder)
    found = [] if plan is None else [parts.path_of(folder, part).exists() for part in plan.parts()]
    return sum(found), len(found)


def _settings(scorer: BatchScorer, selection: Selection | None) -> dict[str, Any]:
    return {
        "model": scorer.digest or scorer.model, "columns": scorer.columns, "prefix": scorer.prefix,
        "options": {name: repr(value) for name, value in sorted(scorer.options.items()) if name != "threads"},
        "selection": None if selection is None else asdict(selection),
    }  # fmt: skip


class Job:
    """What is to be done, part by part; it can be sent to other processes.

    Args:
        scorer: the model and the columns.
        plan: the parts.
        folder: where they go.
        selection: which rows come out, and as what; None for all of them.
        find: rows of the input to rows with their results.
    """

    def __init__(
        self,
        scorer: BatchScorer,
        plan: Plan,
        folder: Path,
        selection: Selection | None,
        find: Callable[[BatchScorer, Rows], list[Found]],
    ) -> None:
        self.scorer, self.plan, self.folder, self.selection, self.find = scorer, plan, folder, selection, find
        self.make = "rows" if selection is None else selection.make
        self.select: Select | None = None if selection is None else selector(selection)
        self.reader = Reader()

    def waiting(self) -> Iterator[Part]:
        """The parts that are not there yet, in order."""
        return (part for part in self.plan.parts() if not self.has(part))

    def has(self, part: Part) -> bool:
        """Whether a part is there."""
        return parts.path_of(self.folder, part).exists()

    def run(self, progress: Progress) -> Done:
        """Do what no one else does, one part after the other; what this worker did."""
        return sum((self.do(part, progress) or Done() for part in self.waiting()), Done())

    def do(self, part: Part, progress: Progress) -> Done | None:
        """Do a part; None where another worker is at it or has done it."""
        target, lease = parts.path_of(self.folder, part), Lease(self.folder / f".{part.name}.lease")
        if not lease.take():
            return None
        try:
            # another worker may have finished it between the two looks
            return None if self.has(part) else self._part(part, target, progress)
        finally:
            lease.release()

    def _part(self, part: Part, target: Path, progress: Progress) -> Done:
        kept: list[Row] = []
        bad: list[Row] = []
        sketch, errors, first = Sketch(), 0, None
        rows = self.reader.rows(part)
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            for row, group, result in self.find(self.scorer, chunk):
                errors += result.error is not None
                first = first or result.error
                sketch.add([result.scores.max()] if result.error is None and len(result.scores) else [])
                if self.select is None:
                    kept.append(row)
                elif result.error is not None or not isinstance(group, Group):
                    bad.append(row)
                elif (selected := self.select(row, group, result)) is not None:
                    kept.append(selected)
            progress(len(chunk))
        if bad:
            parts.write(target.with_name(f"errors-{part.number:06d}.jsonl"), bad, None)
        schema = parts.schema_of(part, self.scorer.prefix, self.make, self.plan.settings, scored=self.find is _known)
        facts = {
            "part": part.number, "file": target.name, "read": part.rows, "rows": len(kept), "errors": errors,
            "first_error": first, "scores": sketch.coarse(),
        }  # fmt: skip
        parts.write(target, kept, schema, lambda digest: parts.note(self.folder, part, facts | {"sha256": digest}))
        return Done(parts=1, read=len(rows), written=len(kept), errors=errors)


Work = Callable[[Job, Progress], Done]
"""Who does a job's parts: this process (``Job.run``), or a cluster (``ranker.jobs.cluster``)."""


def _scored(scorer: BatchScorer, chunk: Rows) -> list[Found]:
    """Rows with their results, their groups and their scores; a line that is no row is kept as ``input``."""
    groups = [row if isinstance(row, DataError) else scorer.group(row, where) for where, row in chunk]
    found: list[Found] = []
    for (_, row), group, result in zip(chunk, groups, scorer.score(groups), strict=True):
        columns = {"input": row.raw} if isinstance(row, DataError) else dict(row)
        results = scorer.results(result)
        found.append((rename_collisions(columns, results) | results, group, result))
    return found


def _known(scorer: BatchScorer, chunk: Rows) -> list[Found]:
    """Rows that have their results already."""
    found: list[Found] = []
    for where, row in chunk:
        if isinstance(row, DataError):
            raise row
        given = {name: value for name, value in row.items() if name.removeprefix(scorer.prefix) not in RESULTS}
        group = scorer.group(given, where)
        error = row[f"{scorer.prefix}error"]
        if isinstance(group, DataError) or error is not None:
            found.append((row, group, failed(Group("", ()), str(error or group))))
            continue
        scores, truncated = (row[scorer.prefix + name] for name in ("scores", "truncated"))
        found.append((row, group, GroupScores(np.array(scores, np.float32), np.array(truncated, np.bool_))))
    return found
