"""``ranker select``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.options import Quiet
from ranker.cli.selection import (
    BestOf,
    DropTies,
    KeepRows,
    KeepTop,
    Pairs,
    output_rows_of,
    report_job,
    share_of,
)


def main(
    folder: Annotated[str, typer.Argument(help="a folder that ranker filter wrote, with the scores of all rows")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="a folder; default the same, whose selected rows are replaced")
    ] = None,
    keep: KeepRows = None,
    keep_top: KeepTop = None,
    best_of: BestOf = False,
    pairs: Pairs = False,
    drop_ties: DropTies = False,
    wait: Annotated[bool, typer.Option("--wait", help="end when the whole job is done, also by other workers")] = False,
    quiet: Quiet = False,
) -> None:
    """Select other rows by the scores that ranker filter has written; nothing is scored again.

    Example: ranker select kept --keep-top 5% -o kept-5
    """
    from ranker.api.files import select_rows
    from ranker.progress import shown

    output_rows = output_rows_of(best_of, pairs)
    with shown(not quiet):
        status = select_rows(
            folder,
            output,
            keep=keep,
            keep_top=share_of(keep_top),
            output_rows=output_rows,
            drop_ties=drop_ties,
            wait=wait,
        )
    report_job(Path(output or folder), status)
