"""A job over many files: workers score every part once and write the selected rows."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from ranker.atomic import write_text
from ranker.batch_scorer import BatchScorer
from ranker.data.files import Row, rename_collisions
from ranker.data.shapes import RowShape
from ranker.data.sources import Source
from ranker.errors import ConfigError, DataError, JobError
from ranker.jobs import integrity, parts, summary
from ranker.jobs.leases import REPLACING, Lease, held
from ranker.jobs.plan import PART_ROWS, PLAN, SCORED, Part, Plan, Reader, expanded, make_plan, read, start_or_resume
from ranker.jobs.select import OutputRows, Select, Selection, numbers, selector
from ranker.jobs.sketch import Sketch
from ranker.progress import current, stage
from ranker.records import BadRow, Group
from ranker.scoring.distinct import count_reads
from ranker.scoring.protocol import GroupScores
from ranker.scoring.token_budget import fixed_tokens

logger = logging.getLogger(__name__)

BATCH: Final = 1024
"""Rows that are scored together; ``progress`` is called after each batch."""

FIRST_ROWS: Final = 100
"""Rows that are looked at before a job is begun."""

POLL_S: Final = 2.0
"""Seconds between two looks at the parts of other workers, for a call that waits for them."""

Progress = Callable[[int], object]
ScoredRow = tuple[Row, Group | BadRow, GroupScores]
Rows = Sequence[tuple[str, Row | BadRow]]


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
        warn_of_relative(selection, scorer.scorer.info.scores_are_relative)
    earlier = read(folder)
    if earlier is not None and "input" in earlier.settings:
        raise JobError(f"{folder}: holds rows that were selected by their scores; choose a new folder for other ones")
    if part_rows < 1:
        raise ConfigError(f"expected at least one row in a part, got {part_rows}")
    files = expanded(inputs)
    if selection is not None:
        check_candidates(scorer, files, selection)
    plan = start_or_resume(make_plan(files, part_rows, settings_of(scorer, selection), folder), folder)
    return finished(Job(FromModel(scorer), plan, folder, selection), "scoring", progress, work, wait=wait)


def warn_of_relative(selection: Selection, scores_are_relative: bool) -> None:
    """Warn of a limit on scores that say nothing across prompts."""
    if scores_are_relative and re.search(r"\bscore\b", selection.keep or ""):
        logger.warning("this model compares answers of one prompt: its scores say little across prompts; use margin")


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


def finished(job: Job, title: str, progress: Progress, work: Work | None = None, *, wait: bool) -> JobStatus:
    """Do what is left of a job, and end it when all of it is done: manifest, summary, ``_SUCCESS``.

    Raises:
        DataError: all rows failed.
        JobError: a part that is there, or the input, was changed.
    """
    if not integrity.is_whole(job.folder, job.plan):
        (job.folder / parts.SUCCESS).unlink(missing_ok=True)
    integrity.check_parts(job.folder, filter(job.has, job.plan.parts()))
    with stage(title, job.rows, done=job.rows_done()):
        status = (work or Job.run)(job, progress)
        while wait and next(job.pending(), None) is not None and (job.folder / PLAN).exists():
            time.sleep(POLL_S)
            status += (work or Job.run)(job, progress)
    if next(job.pending(), None) is None:
        integrity.check_input(job.plan.sources)
        if status.parts:
            integrity.check_parts(job.folder, job.plan.parts())
        parts.finish(job.folder)
        counts = summary.write_summary(job.folder, job.plan)
        if counts.read and counts.errors == counts.read:
            raise DataError(str(job.folder), "rows", f"all {counts.read} failed; the first: {counts.first_error}")
        write_text(job.folder / parts.SUCCESS, "")
    return status


def done_of(folder: Path) -> tuple[int, int]:
    """How many parts of the job in ``folder`` are done, and how many it has; (0, 0) without a job."""
    plan = read(folder)
    exists = [] if plan is None else [parts.path_of(folder, part).exists() for part in plan.parts()]
    return sum(exists), len(exists)


def interrupted(folder: Path) -> str:
    """What a job that was interrupted has done so far, as a sentence."""
    plan = read(folder)
    selects = plan is not None and "input" in plan.settings
    step = "selecting" if selects or (folder / SCORED / parts.SUCCESS).exists() else "scoring"
    job = folder / SCORED if (folder / SCORED).exists() and step == "scoring" else folder
    done, total = done_of(job)
    if step == "selecting" and total == 0:
        return f"stopped; all parts are scored and kept in {folder / SCORED}. The same command continues"
    if total == 0:
        return f"stopped before {folder} was begun; nothing was written"
    return f"stopped while {step}; {done} of {total} parts in {folder} are done and kept. The same command continues"


def settings_of(scorer: BatchScorer, selection: Selection | None) -> dict[str, Any]:
    """What decides the output of a job, for its plan."""
    info = scorer.scorer.info
    return {
        "engine": info.engine,
        "precision": info.precision,
        "max_tokens_per_forward": info.max_tokens_per_forward,
        "model": scorer.digest or scorer.model,
        "columns": scorer.columns,
        "prefix": scorer.prefix,
        "options": {name: repr(value) for name, value in sorted(scorer.options.items()) if name != "threads"},
        "selection": None if selection is None else selection.facts(),
    }


class RowScores(Protocol):
    """Where the scores of a job's rows come from: a model, or the rows themselves, which were scored before."""

    stored: bool
    """Whether the rows have their scores."""

    @property
    def prefix(self) -> str:
        """The prefix of the columns that are added."""
        ...

    def score(self, rows: Rows, shape: RowShape | None) -> list[ScoredRow]:
        """The rows with results, their groups and their scores."""
        ...

    def facts(self) -> dict[str, Any]:
        """What is noted of each part about the scores."""
        ...

    def failed(self, part: Part) -> tuple[list[Row], str | None]:
        """Rows of a part that failed when they were scored and are not in it, and the first reason."""
        ...

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to score otherwise than the job's settings say."""
        ...


class FromModel:
    """Scores by a model."""

    stored = False

    def __init__(self, scorer: BatchScorer) -> None:
        self.scorer = scorer

    @property
    def prefix(self) -> str:
        """See ``RowScores``."""
        return self.scorer.prefix

    def score(self, rows: Rows, shape: RowShape | None) -> list[ScoredRow]:
        """Score rows; an invalid line is kept in the column ``input``."""
        groups = [row if isinstance(row, BadRow) else self.scorer.group(row, where, shape) for where, row in rows]
        scored_rows: list[ScoredRow] = []
        for (_, row), group, result in zip(rows, groups, self.scorer.score(groups), strict=True):
            columns = {"input": row.raw} if isinstance(row, BadRow) else dict(row)
            results = self.scorer.results(result)
            scored_rows.append((rename_collisions(columns, results) | results, group, result))
        return scored_rows

    def failed(self, part: Part) -> tuple[list[Row], str | None]:
        """See ``RowScores``: all rows are in their part."""
        return [], None

    def check(self, settings: Mapping[str, Any]) -> None:
        """See ``RowScores``: another engine or precision would give other scores.

        Raises:
            JobError: naming both.
        """
        info = self.scorer.scorer.info
        for name, value in (("engine", info.engine), ("precision", info.precision)):
            if settings[name] != value:
                raise JobError(f"the job was started with {name} {settings[name]}, this worker has {value}")

    def facts(self) -> dict[str, Any]:
        """The model's name, and whether its scores are comparable across prompts."""
        return {"model": self.scorer.model, "relative": self.scorer.scorer.info.scores_are_relative}


class Job:
    """A job's plan and how to do its parts; it can be sent to other processes.

    Args:
        scores: where the rows' scores come from.
        plan: the parts.
        folder: the folder of the parts.
        selection: which rows are written, and in which form; None for all of them.
    """

    def __init__(self, scores: RowScores, plan: Plan, folder: Path, selection: Selection | None) -> None:
        self.scores = scores
        self.plan = plan
        self.folder = folder
        self.selection = selection
        self.output_rows: OutputRows = "rows" if selection is None else selection.output_rows
        self.select: Select | None = None if selection is None else selector(selection)
        self.reader = Reader()
        self.rows = sum(source.rows for source in plan.sources)
        self.parts = sum(-(-source.rows // plan.part_rows) for source in plan.sources)

    def pending(self) -> Iterator[Part]:
        """The parts that are not done yet, in order."""
        return (part for part in self.plan.parts() if not self.has(part))

    def has(self, part: Part) -> bool:
        """Whether a part is done."""
        return parts.path_of(self.folder, part).exists()

    def rows_done(self) -> int:
        """Rows of the parts that are done, by whichever worker."""
        return sum(part.rows for part in self.plan.parts() if self.has(part))

    def run(self, progress: Progress) -> JobStatus:
        """Do the parts that no other worker does, one after the other; the work of this worker."""
        total = JobStatus()
        for part in self.pending():
            if not (self.folder / PLAN).exists():  # another worker has finished the whole job and discarded the scores
                break
            status = self.do(part, progress)
            if status is None:  # other workers are at it; what they have done counts too
                current().move(self.rows_done())
            total += status or JobStatus()
        return total

    def do(self, part: Part, progress: Progress) -> JobStatus | None:
        """Do a part; None when another worker does it or has done it."""
        target, lease = parts.path_of(self.folder, part), Lease(self.folder / f".{part.name}.lease")
        if not lease.take():
            return None
        try:
            # another worker may have finished it before the lease was taken, or may be replacing the selection
            skip = self.has(part) or held(self.folder / REPLACING)
            return None if skip else self._part(part, target, progress)
        finally:
            lease.release()

    def _part(self, part: Part, target: Path, progress: Progress) -> JobStatus:
        started = time.monotonic()
        kept: list[Row] = []
        failed_before, first_error = self.scores.failed(part) if part.first == 0 else ([], None)
        bad: list[Row] = list(failed_before)
        lost = errors = len(bad)
        sketch = Sketch()
        answers = answers_read = 0
        self.scores.check(self.plan.settings)
        number = "margin" if self.scores.facts().get("relative") else "score"
        tokens = self.plan.settings["max_tokens_per_forward"]
        rows = self.reader.rows(part)
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            with count_reads() as readings, current().span(len(chunk)), fixed_tokens(tokens):
                scored_rows = self.scores.score(chunk, part.shape)
            answers += readings.asked
            answers_read += readings.read
            for row, group, result in scored_rows:
                errors += result.error is not None
                first_error = first_error or result.error
                value = numbers(group, result)[number] if isinstance(group, Group) and result.error is None else None
                sketch.add([] if value is None else [value])
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
                    bad.append(row | {f"{self.scores.prefix}error": reason})
            progress(len(chunk))
        digests: dict[str, str] = {}
        if bad:
            parts.write(
                parts.errors_path(self.folder, part), bad, None, lambda digest: digests.update(errors_sha256=digest)
            )
        schema = None
        if part.is_parquet:
            messages = parts.align(kept, self.output_rows)
            schema = parts.schema_of(
                part,
                self.scores.prefix,
                self.output_rows,
                self.plan.settings,
                scored=self.scores.stored,
                messages=messages,
            )
        facts = {
            "part": part.number,
            "file": target.name,
            "read": part.rows + lost,
            "rows": len(kept),
            "errors": errors,
            "first_error": first_error,
            "number": number,
            "scores": sketch.coarse(),
            "answers": answers,
            "answers_read": answers_read,
            "seconds": round(time.monotonic() - started, 3),
            **digests,
            **self.scores.facts(),
        }
        self._check_plan()
        parts.write(target, kept, schema, lambda digest: parts.note(self.folder, part, facts | {"sha256": digest}))
        current().say(
            f"part {part.number + 1} of {self.parts}: {len(rows)} rows, {len(kept)} written, {errors} with an error"
        )
        return JobStatus(parts=1, read=len(rows) + lost, written=len(kept), errors=errors)

    def _check_plan(self) -> None:
        """Refuse to write into a folder whose selection was replaced meanwhile.

        Raises:
            JobError: the folder's plan is no longer this job's.
        """
        now = read(self.folder)
        if now is None or now.settings != self.plan.settings:
            raise JobError(f"{self.folder}: another command replaced the selection in this folder; nothing was written")


Work = Callable[[Job, Progress], JobStatus]
"""Does a job's parts: this process (``Job.run``), or a cluster (``ranker.jobs.cluster``)."""
