"""A job over many files: workers score every part once and write the selected rows."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.atomic import write_text
from ranker.batch_scorer import RESULTS, BatchScorer
from ranker.data.files import Cells, Row, rename_collisions
from ranker.data.readers import is_table, read_rows
from ranker.data.shapes import RowShape
from ranker.data.sources import Source
from ranker.errors import ConfigError, DataError
from ranker.jobs import parts, summary
from ranker.jobs.keep import normalized
from ranker.jobs.leases import Lease
from ranker.jobs.plan import PART_ROWS, Part, Plan, Reader, expanded, make_plan, read, start_or_resume
from ranker.jobs.select import OutputRows, Select, Selection, selector
from ranker.jobs.sketch import Sketch
from ranker.records import BadRow, Group
from ranker.scoring.distinct import count_reads
from ranker.scoring.protocol import GroupScores, failed

logger = logging.getLogger(__name__)

BATCH: Final = 1024
"""Rows that are scored together; ``progress`` is called after each batch."""

FIRST_ROWS: Final = 100
"""Rows that are looked at before a job is begun."""

POLL_S: Final = 2.0
"""Seconds between two looks at the parts of other workers, for a call that waits for them."""

SCORED: Final = "_scored"
"""The subfolder of all scored rows, for jobs that keep the best share of them."""

Progress = Callable[[int], object]
ScoredRow = tuple[Row, Group | BadRow, GroupScores]
Rows = Sequence[tuple[str, Row | BadRow]]
ScoreRows = Callable[[BatchScorer, Rows, RowShape | None], list[ScoredRow]]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How much of a job this process has done; statuses of several workers can be added.

    Attributes:
        parts: the finished parts.
        read: rows of these parts that were read.
        written: rows that were written.
        errors: rows that could not be scored.

    Example:
        >>> first = ranker.JobStatus(parts=1, read=100, written=90)
        >>> first + ranker.JobStatus(parts=1, read=50, written=50, errors=1)
        JobStatus(parts=2, read=150, written=140, errors=1)
    """

    parts: int = 0
    read: int = 0
    written: int = 0
    errors: int = 0

    def __add__(self, other: JobStatus) -> JobStatus:
        """The sums of both."""
        return JobStatus(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def score(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    *,
    part_rows: int = PART_ROWS,
    selection: Selection | None = None,
    progress: Progress = lambda rows: None,
    work: Work | None = None,
    wait: bool = False,
) -> JobStatus:
    """Score files into ``folder``, one file per part; finished parts of an earlier run are not repeated.

    Rows keep their order and columns and gain the columns of ``BatchScorer``. With a selection only selected rows are
    written, and rows with an error go to ``errors-*.jsonl``, so that nothing is lost. When all parts are done,
    ``_manifest.jsonl`` holds their hashes and ``_SUCCESS`` is written. Several workers, on one machine or many, may do
    the same job in one folder.

    Args:
        scorer: the model and the columns.
        inputs: files and globs (.jsonl, .jsonl.gz, .jsonl.zst, .parquet).
        folder: the folder of the parts.
        part_rows: rows of a part; a worker that dies loses at most one part.
        selection: which rows are written, and in which form.
        progress: called with the number of rows after every batch.
        work: does the parts; default this process.
        wait: whether this call ends only when the job is done; parts of workers that die are taken over.

    Raises:
        ConfigError: ``part_rows`` below 1, an invalid selection, or pairs of rows that have one answer each.
        JobError: the folder holds another job; the message names the field that differs.
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
    files = expanded(inputs)
    if selection is not None:
        check_candidates(scorer, files, selection)
    plan = start_or_resume(make_plan(files, part_rows, _settings(scorer, selection), folder), folder)
    return _finished(Job(scorer, plan, folder, selection, _score_rows), progress, work, wait=wait)


def check_candidates(scorer: BatchScorer, files: Sequence[Source], selection: Selection) -> None:
    """Refuse pairs of rows that have one answer each, by the first rows.

    Raises:
        ConfigError: none of them has two answers.
    """
    if selection.output_rows != "pairs":
        return
    rows = islice(((source, *row) for source in files for row in source.rows()), FIRST_ROWS)
    groups = [scorer.group(row, where, source.shape) for source, where, row in rows if not isinstance(row, BadRow)]
    counts = [len(group.candidates) for group in groups if isinstance(group, Group)]
    if counts and max(counts) < 2:
        raise ConfigError(
            f"pairs are made of the best and the worst answer to a prompt, and the first {len(counts)} rows of "
            f"{files[0].path} have one answer each; put the answers of a prompt into one row, or leave out --pairs"
        )


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
    wait: bool = False,
) -> JobStatus:
    """Keep the best ``share`` of all rows, and of these the rows that ``selection`` keeps.

    Rows are compared by the score of their best candidate; with a model that compares answers by its margin over the
    next candidate, because scores of such a model are not comparable across prompts. All rows are first scored into
    ``folder/_scored``, as by ``score``. The threshold comes from counts (``sketch``), so rows that tie with the last
    one on 16 bits are kept too. While other workers still score, nothing is selected: run it again when they are done.

    Raises:
        ConfigError: a share outside (0, 1].
        JobError: as in ``score``.
        DataError: as in ``score``, or no row could be scored.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"expected a share in (0, 1], got {share}")
    selector(selection)
    check_candidates(scorer, expanded(inputs), selection)
    done = score(scorer, inputs, folder / SCORED, part_rows=part_rows, progress=progress, work=work, wait=wait)
    scored_plan = read(folder / SCORED)
    if scored_plan is None or not (folder / SCORED / parts.SUCCESS).exists():
        return done
    scored = [
        Source(str(parts.path_of(folder / SCORED, part).absolute()), part.dataset if part.shape is not None else "")
        for part in scored_plan.parts()
    ]
    tables = frozenset(
        source.path for source, part in zip(scored, scored_plan.parts(), strict=True) if is_table(part.source)
    )
    number, sketch = "margin" if scorer.scorer.info.scores_are_relative else "score", Sketch()
    for _, row in chain.from_iterable(read_rows(source.path) for source in scored):
        if isinstance(row, BadRow) or row[f"{scorer.prefix}error"] is not None:
            continue
        scores = row[f"{scorer.prefix}scores"]
        value = row[f"{scorer.prefix}margin"] if number == "margin" else max(scores, default=None)
        sketch.add([] if value is None else [value])
    if not sketch.n:
        raise DataError(", ".join(inputs), "rows", "expected at least one row that can be compared")
    also = f" and ({normalized(selection.keep)})" if selection.keep else ""
    keep = f"{number} >= {sketch.threshold(share)!r}{also}"
    plan = start_or_resume(
        make_plan(scored, part_rows, _settings(scorer, selection) | {"share": share}, folder), folder
    )
    return _finished(
        Job(scorer, plan, folder, replace(selection, keep=keep), partial(_parse_scored, tables=tables)),
        progress,
        None,
        wait=wait,
    )


def _finished(job: Job, progress: Progress, work: Work | None, *, wait: bool) -> JobStatus:
    status = (work or Job.run)(job, progress)
    while wait and next(job.pending(), None) is not None:
        time.sleep(POLL_S)
        status += (work or Job.run)(job, progress)
    if next(job.pending(), None) is None:
        parts.finish(job.folder)
        counts = summary.write_summary(job.folder, job.plan)
        if counts.read and counts.errors == counts.read:
            raise DataError(str(job.folder), "error", f"all {counts.read} rows failed; the first: {counts.first_error}")
        write_text(job.folder / parts.SUCCESS, "")
    return status


def done_of(folder: Path) -> tuple[int, int]:
    """How many parts of the job in ``folder`` are done, and how many it has; (0, 0) without a job."""
    plan = read(folder)
    exists = [] if plan is None else [parts.path_of(folder, part).exists() for part in plan.parts()]
    return sum(exists), len(exists)


def interrupted(folder: Path) -> str:
    """What a job that was interrupted has done so far, as a sentence."""
    stage = "selecting" if (folder / SCORED / parts.SUCCESS).exists() else "scoring"
    job = folder / SCORED if (folder / SCORED).exists() and stage == "scoring" else folder
    done, total = done_of(job)
    if stage == "selecting" and total == 0:
        return f"stopped; all parts are scored and kept in {folder / SCORED}. The same command continues"
    if total == 0:
        return f"stopped before {folder} was begun; nothing was written"
    return f"stopped while {stage}; {done} of {total} parts in {folder} are done and kept. The same command continues"


def _settings(scorer: BatchScorer, selection: Selection | None) -> dict[str, Any]:
    return {
        "model": scorer.digest or scorer.model,
        "columns": scorer.columns,
        "prefix": scorer.prefix,
        "options": {name: repr(value) for name, value in sorted(scorer.options.items()) if name != "threads"},
        "selection": None if selection is None else selection.facts(),
    }


class Job:
    """A job's plan and how to do its parts; it can be sent to other processes.

    Args:
        scorer: the model and the columns.
        plan: the parts.
        folder: the folder of the parts.
        selection: which rows are written, and in which form; None for all of them.
        score_rows: from rows of the input to rows with results, groups and scores.
    """

    def __init__(
        self,
        scorer: BatchScorer,
        plan: Plan,
        folder: Path,
        selection: Selection | None,
        score_rows: ScoreRows,
    ) -> None:
        self.scorer = scorer
        self.plan = plan
        self.folder = folder
        self.selection = selection
        self.score_rows = score_rows
        self.output_rows: OutputRows = "rows" if selection is None else selection.output_rows
        self.select: Select | None = None if selection is None else selector(selection)
        self.reader = Reader()

    def pending(self) -> Iterator[Part]:
        """The parts that are not done yet, in order."""
        return (part for part in self.plan.parts() if not self.has(part))

    def has(self, part: Part) -> bool:
        """Whether a part is done."""
        return parts.path_of(self.folder, part).exists()

    def run(self, progress: Progress) -> JobStatus:
        """Do the parts that no other worker does, one after the other; the work of this worker."""
        return sum((self.do(part, progress) or JobStatus() for part in self.pending()), JobStatus())

    def do(self, part: Part, progress: Progress) -> JobStatus | None:
        """Do a part; None when another worker does it or has done it."""
        target, lease = parts.path_of(self.folder, part), Lease(self.folder / f".{part.name}.lease")
        if not lease.take():
            return None
        try:
            # another worker may have finished it before the lease was taken
            return None if self.has(part) else self._part(part, target, progress)
        finally:
            lease.release()

    def _part(self, part: Part, target: Path, progress: Progress) -> JobStatus:
        kept: list[Row] = []
        bad: list[Row] = []
        sketch = Sketch()
        errors = answers = answers_read = 0
        first_error = None
        rows = self.reader.rows(part)
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            with count_reads() as readings:
                scored_rows = self.score_rows(self.scorer, chunk, part.shape)
            answers += readings.asked
            answers_read += readings.read
            for row, group, result in scored_rows:
                errors += result.error is not None
                first_error = first_error or result.error
                sketch.add([result.scores.max()] if result.error is None and len(result.scores) else [])
                if self.select is None:
                    kept.append(row)
                elif result.error is not None or not isinstance(group, Group):
                    bad.append(row)
                elif (selected := self.select(row, group, result)) is not None:
                    reason = parts.unwritable(selected, self.output_rows) if part.is_parquet else None
                    if reason is None:
                        kept.append(selected)
                        continue
                    errors += 1
                    first_error = first_error or reason
                    bad.append(row | {f"{self.scorer.prefix}error": reason})
            progress(len(chunk))
        if bad:
            parts.write(target.with_name(f"errors-{part.number:06d}.jsonl"), bad, None)
        schema = None
        if part.is_parquet:
            messages = parts.align(kept, self.output_rows)
            scored = self.score_rows is not _score_rows
            schema = parts.schema_of(
                part,
                self.scorer.prefix,
                self.output_rows,
                self.plan.settings,
                scored=scored,
                messages=messages,
            )
        facts = {
            "part": part.number,
            "file": target.name,
            "read": part.rows,
            "rows": len(kept),
            "errors": errors,
            "first_error": first_error,
            "scores": sketch.coarse(),
            "answers": answers,
            "answers_read": answers_read,
        }
        parts.write(target, kept, schema, lambda digest: parts.note(self.folder, part, facts | {"sha256": digest}))
        return JobStatus(parts=1, read=len(rows), written=len(kept), errors=errors)


Work = Callable[[Job, Progress], JobStatus]
"""Does a job's parts: this process (``Job.run``), or a cluster (``ranker.jobs.cluster``)."""


def _score_rows(scorer: BatchScorer, chunk: Rows, shape: RowShape | None) -> list[ScoredRow]:
    """Score rows; an invalid line is kept in the column ``input``."""
    groups = [row if isinstance(row, BadRow) else scorer.group(row, where, shape) for where, row in chunk]
    scored_rows: list[ScoredRow] = []
    for (_, row), group, result in zip(chunk, groups, scorer.score(groups), strict=True):
        columns = {"input": row.raw} if isinstance(row, BadRow) else dict(row)
        results = scorer.results(result)
        scored_rows.append((rename_collisions(columns, results) | results, group, result))
    return scored_rows


def _parse_scored(
    scorer: BatchScorer, chunk: Rows, shape: RowShape | None, tables: frozenset[str] = frozenset()
) -> list[ScoredRow]:
    """The results that rows already have; those in the files ``tables`` are of CSV files, whose cells are texts."""
    scored_rows: list[ScoredRow] = []
    for where, row in chunk:
        if isinstance(row, BadRow):
            raise row.error
        columns = {name: value for name, value in row.items() if name.removeprefix(scorer.prefix) not in RESULTS}
        group = scorer.group(Cells(columns) if where.rpartition(":")[0] in tables else columns, where, shape)
        error = row[f"{scorer.prefix}error"]
        if isinstance(group, BadRow) or error is not None:
            scored_rows.append((row, group, failed(Group("", ()), str(error or group))))
            continue
        values = {name: row[scorer.prefix + name] for name in RESULTS}
        result = GroupScores(
            np.array(values["scores"], np.float32),
            np.array(values["truncated"], np.bool_),
            prompt_truncated=values["prompt_truncated"],
            special_text=values["special_text"],
        )
        scored_rows.append((row, group, result))
    return scored_rows
