"""What ``ranker filter`` and ``ranker select`` share: which rows are kept, and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranker.errors import ConfigError, LeasedError

if TYPE_CHECKING:
    from ranker.jobs.job import JobStatus
    from ranker.jobs.select import OutputRows

KeepRows = Annotated[str | None, typer.Option("--keep", help="an expression, e.g. 'score > 0.5 and not truncated'")]
KeepTop = Annotated[
    str | None,
    typer.Option(help="the best share, e.g. 10%: by score, or by margin if the model compares the answers of a prompt"),
]
BestOf = Annotated[bool, typer.Option("--best-of", help="add the best candidate as best")]
Pairs = Annotated[bool, typer.Option("--pairs", help="the best and the worst candidate, for DPO")]
DropTies = Annotated[bool, typer.Option("--drop-ties", help="leave out rows whose best have one score")]


def output_rows_of(best_of: bool, pairs: bool) -> OutputRows:
    """What becomes of a row.

    Raises:
        ConfigError: both were asked for.
    """
    if best_of and pairs:
        raise ConfigError("--best-of and --pairs make different rows; choose one of them")
    return "best" if best_of else "pairs" if pairs else "rows"


def share_of(text: str | None) -> float | None:
    """``10%`` or ``0.1`` as a share.

    Raises:
        ConfigError: not a share in (0, 1].
    """
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"--keep-top '{text}': expected a share, for example 10% or 0.1")
    return share


def report_job(folder: Path, status: JobStatus) -> None:
    """Print what a job has done.

    Raises:
        LeasedError: other workers have all the parts that are left.
    """
    from rich.console import Console

    from ranker.cli.terminal import show
    from ranker.jobs import summary
    from ranker.jobs.parts import SUCCESS

    totals = summary.counted(folder)
    unfinished = "other workers still have parts, or it was stopped; start again to continue"
    rows = [
        ("parts done here", str(status.parts)),
        ("rows read", f"{totals.read:,}"),
        ("rows written", f"{totals.written:,}{summary.share_in_words(totals)}"),
        ("rows with an error", f"{totals.errors}" + (f"; the first: {totals.first_error}" if totals.errors else "")),
        *summary.answers_rows(totals),
        ("rows left out by the selection", str(totals.read - totals.written - totals.errors)),
        ("job", f"finished; see {folder / summary.HTML}" if (folder / SUCCESS).exists() else unfinished),
    ]
    show(Console(stderr=True), str(folder), rows)
    if not status.parts and not (folder / SUCCESS).exists():
        raise LeasedError(
            f"{folder}: other workers have all the parts that are left; start again when they are done, or with --wait"
        )
