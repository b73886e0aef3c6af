"""``ranker filter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ranker.cli.options import AverageOrders, Column, Device, Model, Option, Quiet, Threads, columns_of, load_options
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
from ranker.errors import ConfigError


def _check(folder: str | None) -> None:
    """End after a check of a job's files."""
    if folder is None:
        return
    from ranker.api.files import check_job

    parts = check_job(folder)
    state = "the job is finished" if parts.is_whole else "the same ranker filter command continues"
    typer.echo(f"{folder}: {parts.there} of {parts.total} parts are there and as they were written; {state}")
    raise typer.Exit


def main(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="files, folders and patterns (.jsonl, .csv, .tsv, .parquet, .arrow, also .gz), or NAME=FILE"
        ),
    ],
    model: Model,
    folder: Annotated[str, typer.Option("--output", "-o", help="a folder; parts that are there are not done again")],
    keep: KeepRows = None,
    keep_top: KeepTop = None,
    best_of: BestOf = False,
    pairs: Pairs = False,
    drop_ties: DropTies = False,
    discard_scores: Annotated[
        bool, typer.Option("--discard-scores", help="do not keep the scores of all rows, which ranker select reads")
    ] = False,
    part_rows: Annotated[int, typer.Option(help="rows of a part, which is what a worker loses when it dies")] = 5000,
    engine: Annotated[str, typer.Option(help="local, or ray: a pool of workers (the ray extra)")] = "local",
    workers: Annotated[int | None, typer.Option(help="of Ray, at most; default one per processor")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default one on this machine")] = None,
    column: Column = None,
    prefix: Annotated[str, typer.Option(help="of the columns that are added")] = "ranker_",
    device: Device = "auto",
    threads: Threads = None,
    option: Option = None,
    average_orders: AverageOrders = True,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            help="check that the files of this folder's job are as they were written, and end",
            is_eager=True,
            callback=_check,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="end when the whole job is done, also by other workers")] = False,
    quiet: Quiet = False,
) -> None:
    """Score files of any size into a folder, and keep what is worth keeping; continues where it was stopped.

    Several processes or machines may share one folder. Rows that cannot be scored go to errors-*.jsonl.

    Example: ranker filter 'data/*.parquet' --model model.onnx -o kept --keep-top 10% --pairs
    """
    from ranker.api.files import filter_files
    from ranker.progress import shown

    output_rows = output_rows_of(best_of, pairs)
    with shown(not quiet):
        status = filter_files(
            inputs,
            model,
            folder,
            keep=keep,
            keep_top=share_of(keep_top),
            output_rows=output_rows,
            drop_ties=drop_ties,
            columns=columns_of(column),
            prefix=prefix,
            part_rows=part_rows,
            engine="ray" if engine == "ray" else _local(engine),
            workers=workers,
            address=address,
            threads=threads,
            wait=wait,
            keep_scores=not discard_scores,
            device=device,
            average_orders=average_orders,
            **load_options(option),
        )
    report_job(Path(folder), status)


def _local(engine: str) -> Literal["local"]:
    if engine != "local":
        raise ConfigError(f"--engine: expected local or ray, got '{engine}'")
    return "local"
