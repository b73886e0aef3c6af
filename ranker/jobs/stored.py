"""Selections from rows that a job has scored: another threshold needs no model."""

from __future__ import annotations

import logging
import math
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.batch_scorer import RESULTS, BatchScorer, RowReader
from ranker.data.files import Cells, Row
from ranker.data.readers import is_table, read_rows
from ranker.data.shapes import RowShape
from ranker.data.sources import Source
from ranker.errors import ConfigError, DataError, JobError
from ranker.jobs import integrity, leases, parts, summary
from ranker.jobs.job import (
    Job,
    JobStatus,
    Progress,
    Rows,
    ScoredRow,
    Work,
    check_candidates,
    finished,
    score,
    warn_of_relative,
)
from ranker.jobs.job import settings_of as settings_of_scoring
from ranker.jobs.keep import normalized
from ranker.jobs.plan import (
    PART_ROWS,
    PLAN,
    SCORED,
    InputFile,
    Part,
    Plan,
    check_same,
    expanded,
    make_plan,
    read,
    start_or_resume,
)
from ranker.jobs.select import Selection, selector
from ranker.progress import counted, stage
from ranker.records import BadRow, Group
from ranker.scoring.protocol import GroupScores, failed

logger = logging.getLogger(__name__)

SELECTING: Final = ("selection", "share", "threshold")
"""The settings that a new selection of the same scores may change."""

WRITTEN: Final = ("part-*", "errors-*", ".part-*", ".errors-*", parts.MANIFEST, *summary.FILES)
"""Patterns of what a selection writes, besides its plan and the facts of its parts."""


def score_and_select(
    scorer: BatchScorer,
    inputs: Sequence[str],
    folder: Path,
    *,
    selection: Selection = Selection(),  # noqa: B008  frozen
    share: float | None = None,
    part_rows: int = PART_ROWS,
    progress: Progress = lambda rows: None,
    work: Work | None = None,
    wait: bool = False,
    keep_scores: bool = True,
) -> JobStatus:
    """Score all rows into ``folder/_scored``, then select from them into ``folder``.

    The scores stay, so that another selection by the same model from the same input scores nothing again; it replaces
    the selected rows. While other workers still score, nothing is selected: run it again when they are done.

    Args:
        scorer: the model and the columns.
        inputs: as in ``job.score``.
        folder: the folder of the selected rows.
        selection: which rows are written, and in which form.
        share: see ``select_stored``.
        part_rows: rows of a part.
        progress: called with the number of rows after every batch of both passes.
        work: scores the parts; default this process.
        wait: whether this call ends only when the job is done.
        keep_scores: whether ``folder/_scored`` stays when the job is done.

    Raises:
        ConfigError: a share outside (0, 1], an invalid expression, or pairs of rows that have one answer each.
        JobError: the folder holds another job, or its scores were discarded and the selection is another one.
        DataError: as in ``job.score``, or no row could be scored.
    """
    check_selection(selection, share)
    files = expanded(inputs)
    check_candidates(scorer, files, selection)
    scores = folder / SCORED
    earlier = read(folder)
    if earlier is not None and "input" not in earlier.settings:
        if earlier.settings.get("selection") in (None, Selection().facts()):
            raise JobError(
                f"{folder}: holds the scored rows of a job without a selection; select from them into another folder: "
                f"ranker select {folder} -o OTHER"
            )
        raise JobError(f"{folder}: was started with --discard-scores; give it again, or choose a new folder")
    if (folder / parts.SUCCESS).exists() and not scores.exists():
        plan = make_plan(files, part_rows, settings_of_scoring(scorer, None), folder)
        _check_discarded(folder, _settings(plan, selection, share))
        integrity.check_job(folder)
        return JobStatus()
    done = score(scorer, inputs, scores, part_rows=part_rows, progress=progress, work=work, wait=wait)
    if not (scores / parts.SUCCESS).exists():
        return done
    status = select_stored(scores, folder, selection=selection, share=share, progress=progress, wait=wait)
    if not keep_scores and (folder / parts.SUCCESS).exists():
        shutil.rmtree(scores)
    return status


def scores_in(folder: Path) -> Path:
    """The folder of all scored rows of a job: ``folder/_scored``, or ``folder`` where all rows were written.

    Raises:
        JobError: there are none, or not all of them yet.
    """
    plan, scores = read(folder), folder
    if plan is None or read(folder / SCORED) is not None:
        plan, scores = read(folder / SCORED), folder / SCORED
    if plan is None:
        raise JobError(f"{folder}: expected a folder that ranker filter wrote, found no job in it")
    if "input" in plan.settings and plan.sources and (read(Path(plan.sources[0].path).parent) is not None):
        return scores_in(Path(plan.sources[0].path).parent)  # of a selection with a folder of its own
    if "input" in plan.settings or plan.settings.get("selection") not in (None, Selection().facts()):
        raise JobError(
            f"{folder}: its scores were discarded, and only the selected rows are there; score the input again into a "
            "new folder with ranker filter, without --discard-scores"
        )
    if not (scores / parts.SUCCESS).exists():
        raise JobError(f"{folder}: not all rows are scored yet; continue it with the same ranker filter command")
    return scores


def select_stored(
    scores: Path,
    folder: Path,
    *,
    selection: Selection = Selection(),  # noqa: B008  frozen
    share: float | None = None,
    progress: Progress = lambda rows: None,
    wait: bool = False,
) -> JobStatus:
    """Select from the rows of a finished job, by the scores they have, into ``folder``.

    With a share the best rows are kept, and of these the rows that ``selection`` keeps. Rows are compared by the score
    of their best candidate; with a model that compares answers by its margin over the next candidate, because scores
    of such a model are not comparable across prompts. Rows that tie with the last one are kept too, and a warning says
    how many. A selection of the same scores that is in the folder is replaced.

    Args:
        scores: the folder of all scored rows (``scores_in``).
        folder: the folder of the selected rows.
        selection: which rows are written, and in which form.
        share: the best share of all rows, in (0, 1]; None keeps all that ``selection`` keeps.
        progress: called with the number of rows after every batch.
        wait: whether this call ends only when the job is done.

    Raises:
        ConfigError: a share outside (0, 1], an invalid expression, or ``folder`` is that of the scores.
        JobError: the folder holds another job, other workers are selecting in it, or a scored part was changed.
        DataError: no row could be scored.
    """
    check_selection(selection, share)
    if folder.resolve() == scores.resolve():
        raise ConfigError(f"{folder}: holds all scored rows; give the selected ones a folder of their own with -o")
    scoring = read(scores)
    if scoring is None:
        raise JobError(f"{scores}: expected a job's folder, found no {PLAN}")
    integrity.check_parts(scores, scoring.parts())
    sources = [
        Source(str(parts.path_of(scores, part).absolute()), part.dataset if part.shape is not None else "")
        for part in scoring.parts()
    ]
    prefix, facts = str(scoring.settings["prefix"]), parts.facts(scores)
    settings = _settings(scoring, selection, share)
    plan = make_plan(sources, scoring.part_rows, settings, folder)
    relative = any(part.get("relative") for part in facts)
    keep = selection.keep
    warn_of_relative(selection, relative)
    if share is not None:
        threshold = _threshold(sources, plan, prefix, share, "margin" if relative else "score")
        plan = replace(plan, settings=settings | {"threshold": asdict(threshold)})
        keep = threshold.expression(selection.keep)
    _replace_selection(plan, folder)
    start_or_resume(plan, folder)
    tables = frozenset(
        source.path for source, part in zip(sources, scoring.parts(), strict=True) if is_table(part.source)
    )
    reader, lost = RowReader(scoring.settings["columns"], prefix), _lost(scores, sources, facts, prefix)
    rows = FromRows(reader, tables, lost, relative=relative)
    return finished(Job(rows, plan, folder, replace(selection, keep=keep)), "selecting", progress, wait=wait)


def check_selection(selection: Selection, share: float | None) -> None:
    """Refuse an invalid selection before any work starts.

    Raises:
        ConfigError: a share outside (0, 1], an invalid expression, or an unknown form of the rows.
    """
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"expected a share in (0, 1], got {share}")
    selector(selection)
    if selection.keep:
        normalized(selection.keep)


def _settings(scoring: Plan, selection: Selection, share: float | None) -> dict[str, Any]:
    """What decides the output of a selection: the scoring and its input, which the summary names, and the selection."""
    files = scoring.settings.get("input") or [_named(source) for source in scoring.sources]
    settings = {**scoring.settings, "selection": selection.facts(), "input": files}
    return settings if share is None else settings | {"share": share}


def _named(source: InputFile) -> dict[str, Any]:
    return {"path": source.path, "rows": source.rows, "sha256": source.sha256}


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least ``score`` or ``margin`` (``number``) of the rows that are kept."""

    number: str
    at_least: float

    def expression(self, keep: str | None) -> str:
        """The threshold, and what else a row must fulfil, as an expression."""
        also = f" and ({normalized(keep)})" if keep else ""
        return f"{self.number} >= {self.at_least!r}{also}"


def _threshold(sources: Sequence[Source], plan: Plan, prefix: str, share: float, number: str) -> Threshold:
    """The threshold of the best share of the rows that have a score; it needs 4 bytes a row.

    Raises:
        DataError: no row has one.
    """
    values = array("f")
    with stage("finding the threshold", sum(source.rows for source in plan.sources)):
        for row in counted(_scored_rows(sources)):
            if row[f"{prefix}error"] is None:
                best = max(row[f"{prefix}scores"], default=None)
                value = row[f"{prefix}margin"] if number == "margin" else best
                values.extend([] if value is None else [value])
    if not values:
        files = ", ".join(file["path"] for file in plan.settings["input"])
        raise DataError(files, "rows", "expected at least one row that can be compared")
    numbers = np.frombuffer(values, np.float32)
    wanted = max(1, math.ceil(share * len(numbers) - 1e-9))
    at_least = float(np.partition(numbers, len(numbers) - wanted)[len(numbers) - wanted])
    kept = int((numbers >= np.float32(at_least)).sum())
    if kept > wanted:
        logger.warning(
            "%d rows have exactly the %s of the last of the best %.3g%%, so %.3g%% are kept (%d rows)",
            int((numbers == np.float32(at_least)).sum()),
            number,
            100 * share,
            100 * kept / len(numbers),
            kept,
        )
    return Threshold(number, at_least)


def _scored_rows(sources: Sequence[Source]) -> Iterator[Row]:
    for source in sources:
        for _, row in read_rows(source.path):
            if not isinstance(row, BadRow):
                yield row


Lost = tuple[list[Row], "str | None"]
"""Rows that failed, and the first reason."""


def _lost(scores: Path, sources: Sequence[Source], facts: Sequence[dict[str, Any]], prefix: str) -> dict[str, Lost]:
    """The rows that failed when they were scored and are in files of their own, by the scored file before them.

    Those of a file without other rows, which is no part of a selection, are at the next one with rows.
    """
    lost: dict[str, list[Row]] = {}
    waiting: list[Row] = []
    last = next((source.path for source, part in zip(sources, facts, strict=True) if part["rows"]), "")
    for source, part in zip(sources, facts, strict=True):
        file = scores / f"errors-{part['part']:06d}.jsonl"
        if file.is_file():
            waiting += [row for _, row in read_rows(str(file)) if not isinstance(row, BadRow)]
        if part["rows"]:
            last = source.path
            lost[last], waiting = waiting, []
    lost.setdefault(last, []).extend(waiting)
    return {path: (rows, str(rows[0][f"{prefix}error"])) for path, rows in lost.items() if rows}


def _check_discarded(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse another selection where the scores are gone; the same one is done.

    Raises:
        JobError: naming what differs.
    """
    earlier = read(folder)
    if earlier is None:
        raise JobError(f"{folder}: holds {parts.SUCCESS} and no {PLAN}; choose a new folder")
    before = {name: value for name, value in earlier.settings.items() if name != "threshold"}
    check_same(folder, replace(earlier, settings=before), replace(earlier, settings=settings))


def _replace_selection(plan: Plan, folder: Path) -> None:
    """Remove another selection of the same scores from the folder.

    Raises:
        JobError: other workers are selecting in it.
    """
    earlier = read(folder)
    if earlier is None or earlier.settings == plan.settings or _scores(earlier) != _scores(plan):
        return
    # A worker takes the lease of its part and then looks at this one; here it is the other way round.
    lease = leases.Lease(folder / leases.REPLACING)
    taken_lease = lease.take()
    try:
        if not taken_lease or any(leases.held(path) for path in folder.glob(".part-*.lease")):
            raise JobError(
                f"{folder}: another worker is writing another selection there; wait for it, or choose another folder"
            )
        logger.warning(
            "%s: the rows that were selected before are replaced (%s)", folder, summary.selection_in_words(earlier)
        )
        (folder / parts.SUCCESS).unlink(missing_ok=True)
        for path in (path for pattern in WRITTEN for path in folder.glob(pattern)):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / parts.FACTS, ignore_errors=True)
        (folder / PLAN).unlink(missing_ok=True)
    finally:
        lease.release()


def _scores(plan: Plan) -> Any:
    """What a selection selects from."""
    settings = {name: value for name, value in plan.settings.items() if name not in SELECTING}
    return settings, [(source.path, source.sha256) for source in plan.sources]


class FromRows:
    """Scores that rows already have.

    Args:
        reader: reads the rows.
        tables: files whose rows are of CSV files, so that all cells are texts.
        lost: by the scored file of a part the rows that failed when it was scored and are not in it.
        relative: whether the scores are comparable only within a prompt.
    """

    stored = True

    def __init__(self, reader: RowReader, tables: frozenset[str], lost: Mapping[str, Lost], *, relative: bool) -> None:
        self.reader, self.tables, self.lost, self.relative = reader, tables, lost, relative

    @property
    def prefix(self) -> str:
        """See ``RowScores``."""
        return self.reader.prefix

    def facts(self) -> dict[str, Any]:
        """See ``RowScores``."""
        return {"relative": self.relative}

    def check(self, settings: Mapping[str, Any]) -> None:
        """See ``RowScores``: nothing is scored."""

    def failed(self, part: Part) -> tuple[list[Row], str | None]:
        """See ``RowScores``."""
        return self.lost.get(part.source, ([], None))

    def score(self, rows: Rows, shape: RowShape | None) -> list[ScoredRow]:
        """See ``RowScores``."""
        return [self._row(where, row, shape) for where, row in rows]

    def _row(self, where: str, row: Row | BadRow, shape: RowShape | None) -> ScoredRow:
        if isinstance(row, BadRow):
            raise row.error
        added = {self.prefix + name for name in RESULTS}
        columns = {name: value for name, value in row.items() if name not in added}
        is_of_table = where.rpartition(":")[0] in self.tables
        group = self.reader.group(Cells(columns) if is_of_table else columns, where, shape)
        error = row[f"{self.prefix}error"]
        if isinstance(group, BadRow) or error is not None:
            return row, group, failed(Group("", ()), str(error or group))
        values = {name: row[self.prefix + name] for name in RESULTS}
        result = GroupScores(
            np.array(values["scores"], np.float32),
            np.array(values["truncated"], np.bool_),
            prompt_truncated=values["prompt_truncated"],
            special_text=values["special_text"],
        )
        return row, group, result
