"""Rows of a file or a stream through a scorer: nothing lost, in order, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, Literal

from ranker.batch_scorer import RESULTS, columns_of
from ranker.data.files import Row, rename_collisions
from ranker.data.formats import parse_group, parse_reference, parse_rendered
from ranker.data.read_row import Columns, UnusedColumns, check_columns
from ranker.data.readers import Rows
from ranker.data.shapes import RowShape
from ranker.data.sources import Source
from ranker.data.writers import check_output, write_rows
from ranker.errors import ConfigError, DataError, InterruptedRunError
from ranker.metrics import sigmoid
from ranker.progress import current
from ranker.ranking.prefilter import prefiltered
from ranker.ranking.tournament import Choice, Played, ranked, with_reference
from ranker.records import BadRow, Group, plain_answer
from ranker.scoring.distinct import count_reads
from ranker.scoring.protocol import NOT_RENDERED, GroupScores, Scorer, failed, rendered_group, warn_of_lone
from ranker.signals import number_of

logger = logging.getLogger(__name__)

Solve = Callable[[Sequence[Group]], Sequence[GroupScores]]
Operation = Literal["score", "rank", "best-of-n", "rank-with-ref", "compare"]
"""What is asked about each row; the commands of the same names."""

CHUNK: Final = 4096
"""Rows that are batched together; memory is bounded by this, whatever the length of the file."""


@dataclass(frozen=True, slots=True)
class StreamResult:
    """Rows that were written, how many of them have an error, and the first error; answers, and how many were read."""

    rows: int
    errors: int
    first_error: str
    answers: int = 0
    answers_read: int = 0


def score_stream(
    operation: Operation,
    scorer: Scorer,
    source: str | Rows,
    target: str,
    *,
    columns: Columns | None = None,
    schedule: Choice | None = None,
    budget: int | None = None,
    prefilter: Scorer | None = None,
    keep: int = 8,
    rendered: bool = False,
    max_error_rate: float = 1.0,
    progress: Callable[[int], object] = lambda rows: None,
) -> StreamResult:
    """Score the rows of ``source`` into ``target``; ``-`` is standard input or output.

    Every input column is kept; a column with the name of a result is kept as ``input_<name>``. A bad row keeps its
    place, with null results and the reason in ``error``.

    Args:
        operation: what is asked about each row.
        scorer: the model.
        source: a file, folder or pattern of files, or ``NAME=FILE`` of a known dataset; or rows with their places.
        target: the file that is written; it appears when it is complete. ``.parquet`` is Parquet, others JSON lines.
        columns: names of the columns where they differ from the known ones.
        schedule: compares candidates in pairs (``ranker.ranking.tournament``).
        budget: the most comparisons of a row.
        prefilter: a model that is asked first; the best ``keep`` candidates go on.
        keep: see ``prefilter``.
        rendered: whether texts are rendered already: a column ``text``, or ``prompt + candidate``.
        max_error_rate: more failed rows than this share are an error.
        progress: called with the number of rows after each.

    Raises:
        ConfigError: rendered texts for another operation than ``score``, or a model that reads pairs.
        InterruptedRunError: Ctrl-C or SIGTERM; a file that was being written is not there.
        DataError: more than ``max_error_rate`` of the rows, or all of them, had an error; the output is complete.
    """
    check_columns(columns or {})
    if rendered and operation != "score":
        raise ConfigError(f"rendered texts are scored; operation '{operation}' takes prompts and candidates")
    if rendered and not scorer.info.renders_conversations:
        raise ConfigError(NOT_RENDERED)
    rows_in: Rows
    shape: RowShape | None = None
    if isinstance(source, str):
        named = Source.parse(source)
        named.check(columns)
        rows_in, shape = named.rows(), named.shape
    else:
        rows_in = source
    check_output(target)
    rank: Solve = partial(ranked, scorer, schedule=schedule, budget=budget)
    if prefilter is not None:
        rank = partial(prefiltered, prefilter, scorer, keep=keep, schedule=schedule, budget=budget)
    rows = errors = 0
    reason = ""
    try:
        with count_reads() as readings, write_rows(target) as out:
            for row in score_rows(operation, scorer, rows_in, columns, rank, rendered, shape):
                out.write(row)
                rows += 1
                errors += row["error"] is not None
                reason = reason or row["error"] or ""
                progress(1)
    except KeyboardInterrupt as error:
        text = f"stopped; {target} was not written (ranker filter keeps its parts)"
        if target == "-":
            text = f"stopped after {rows} rows; what was written stays"
        raise InterruptedRunError(text, number_of(error)) from error
    if rows and (errors / rows > max_error_rate or errors == rows):
        allowed = "" if errors == rows else f" (allowed {max_error_rate:.1%})"
        name = source if isinstance(source, str) else "rows"
        raise DataError(name, "rows", f"{errors} of {rows} failed{allowed}; the first: {reason}")
    return StreamResult(rows, errors, reason, readings.asked, readings.read)


def score_rows(
    operation: Operation,
    scorer: Scorer,
    rows: Iterator[tuple[str, Row | BadRow]],
    columns: Columns | None = None,
    rank: Solve | None = None,
    rendered: bool = False,
    shape: RowShape | None = None,
) -> Iterator[Row]:
    """The rows with their results, in order; memory is bounded by ``CHUNK`` rows."""
    rank = rank or partial(ranked, scorer)
    unused = UnusedColumns(("reference",) if operation == "rank-with-ref" else ())
    while chunk := list(islice(rows, CHUNK)):
        groups = [_group(row, where, columns, operation, unused, rendered, shape) for where, row in chunk]
        if rendered:
            groups = [_as_rendered(group, scorer, where) for group, (where, _) in zip(groups, chunk, strict=True)]
        unused.say()
        good = [(g, row) for g, (_, row) in zip(groups, chunk, strict=True) if isinstance(g, Group)]
        with current().span(len(chunk)):
            scored = iter(_solved(operation, scorer, good, columns, rank))
        for (_, row), group in zip(chunk, groups, strict=True):
            result = next(scored) if isinstance(group, Group) else failed(Group("", ()), str(group))
            yield _with_results(operation, row, group, result, scorer.info.calibration.temperature)


def _solved(
    operation: Operation, scorer: Scorer, good: Sequence[tuple[Group, Any]], columns: Columns | None, rank: Solve
) -> Sequence[GroupScores]:
    groups = [group for group, _ in good]
    if operation == "score":
        warn_of_lone(scorer, groups)
    if operation == "rank-with-ref":
        return with_reference(scorer, groups, [parse_reference(row, "", columns) for _, row in good])
    if operation in ("rank", "best-of-n"):
        return rank(groups)
    return scorer.score(groups)


def _as_rendered(group: Group | BadRow, scorer: Scorer, where: str) -> Group | BadRow:
    if isinstance(group, BadRow):
        return group
    try:
        return rendered_group(group, scorer.info)
    except ConfigError as error:
        return BadRow(where, "prompt", str(error))


def _group(
    row: Row | BadRow,
    where: str,
    columns: Columns | None,
    operation: Operation,
    unused: UnusedColumns,
    rendered: bool,
    shape: RowShape | None,
) -> Group | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        group = (parse_rendered if rendered else parse_group)(row, where, columns, unused, shape)
        if operation == "rank-with-ref":
            parse_reference(row, where, columns)
    except DataError as error:
        return BadRow.of(error)
    if operation == "compare" and len(group.candidates) != 2:
        return BadRow(where, "candidates", f"expected two candidates to compare, got {len(group.candidates)}")
    if operation == "best-of-n" and not group.candidates:
        return BadRow(where, "candidates", "expected at least one candidate to choose the best of")
    return group


def _with_results(
    operation: Operation, row: Row | BadRow, group: Group | BadRow, result: GroupScores, temperature: float
) -> Row:
    columns: Row = {"input": row.raw} if isinstance(row, BadRow) else dict(row)
    make = partial(_compare, temperature=temperature) if operation == "compare" else MAKERS[operation]
    fields = dict.fromkeys(FIELDS[operation]) if result.error is not None else make(group, result)
    fields["error"] = result.error
    return rename_collisions(columns, fields) | fields


def _score(group: Any, result: GroupScores) -> Row:
    fields = columns_of(result)
    del fields["error"]
    return fields | {"scores": _numbers(result.scores)}


def _rank(group: Any, result: GroupScores) -> Row:
    fields = _score(group, result)
    return {"ranked": [plain_answer(group.candidates[i]) for i in fields["order"]], **fields, **_played(result)}


def _best(group: Any, result: GroupScores) -> Row:
    best = int(result.scores.argmax())
    return {
        "best": plain_answer(group.candidates[best]),
        "best_index": best,
        "score": _numbers(result.scores)[best],
        "truncated": bool(result.truncated[best]),
        "prompt_truncated": result.prompt_truncated,
        "special_text": result.special_text,
        **_played(result),
    }


def _played(result: GroupScores) -> Row:
    if not isinstance(result, Played):
        return {}
    return {
        "comparisons": result.comparisons,
        "rounds": result.rounds,
        "confidence": round(result.confidence, 4),
        "order_flips": result.order_flips,
    }


def _compare(group: Any, result: GroupScores, temperature: float = 1.0) -> Row:
    logit = float(result.scores[0]) - float(result.scores[1])
    return {
        "logit": round(logit, 6),
        "probability": round(sigmoid(logit / temperature), 6),
        "winner": None if logit == 0 else int(logit < 0),
        "truncated": result.truncated.tolist(),
        "prompt_truncated": result.prompt_truncated,
        "special_text": result.special_text,
    }


def _numbers(scores: Any) -> list[float]:
    """fp32 scores as their shortest decimal that reads back to the same fp32 number."""
    return [float(str(score)) for score in scores]


MAKERS: Final[dict[Operation, Callable[[Any, GroupScores], Row]]] = {
    "score": _score,
    "rank": _rank,
    "best-of-n": _best,
    "rank-with-ref": _score,
    "compare": _compare,
}

SCORED: Final = tuple(name for name in RESULTS if name != "error")
CUT: Final = ("truncated", "prompt_truncated", "special_text")
FIELDS: Final[dict[Operation, tuple[str, ...]]] = {
    "score": SCORED,
    "rank": ("ranked", *SCORED),
    "best-of-n": ("best", "best_index", "score", *CUT),
    "rank-with-ref": SCORED,
    "compare": ("logit", "probability", "winner", *CUT),
}
"""The result columns of each operation, in order; all are null in a row with an error."""
