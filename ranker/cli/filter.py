"""``ranker filter``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ranker.cli.options import AverageOrders, Column, Device, Model, Option, Quiet, Threads, columns_of, load_options
from ranker.errors import ConfigError, LeasedError

if TYPE_CHECKING:
    from ranker.jobs.select import OutputRows


def main(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="files, folders and patterns (.jsonl, .csv, .tsv, .parquet, .arrow, also .gz), or NAME=FILE"
        ),
    ],
    model: Model,
    folder: Annotated[str, typer.Option("--output", "-o", help="a folder; parts that are there are not done again")],
    keep: Annotated[str | None, typer.Option(help="an expression, e.g. 'score > 0.5 and not truncated'")] = None,
    keep_top: Annotated[
        str | None,
        typer.Option(
            help="the best share, e.g. 10%: by score, or by margin if the model compares the answers of a prompt"
        ),
    ] = None,
    best_of: Annotated[bool, typer.Option("--best-of", help="add the best candidate as best")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="the best and the worst candidate, for DPO")] = False,
    drop_ties: Annotated[bool, typer.Option("--drop-ties", help="leave out rows whose best have one score")] = False,
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
    wait: Annotated[bool, typer.Option("--wait", help="end when the whole job is done, also by other workers")] = False,
    quiet: Quiet = False,
) -> None:
    """Score files of any size into a folder, and keep what is worth keeping; continues where it was stopped.

    Several processes or machines may share one folder. Rows that cannot be scored go to errors-*.jsonl.

    Example: ranker filter 'data/*.parquet' --model model.onnx -o kept --keep-top 10% --pairs
    """
    if best_of and pairs:
        raise ConfigError("--best-of and --pairs make different rows; choose one of them")
    from pathlib import Path

    from rich.console import Console
    from tqdm import tqdm

    from ranker.api.files import filter_files
    from ranker.cli.terminal import show
    from ranker.jobs import summary
    from ranker.jobs.parts import SUCCESS

    output_rows: OutputRows = "best" if best_of else "pairs" if pairs else "rows"
    bar = tqdm(desc="filter", unit=" rows", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
    with bar:
        status = filter_files(
            inputs,
            model,
            folder,
            keep=keep,
            keep_top=None if keep_top is None else share_of(keep_top),
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
            progress=bar.update,
            device=device,
            average_orders=average_orders,
            **load_options(option),
        )
    target = Path(folder)
    totals = summary.counted(target)
    unfinished = "other workers still have parts, or it was stopped; start again to continue"
    rows = [
        ("parts done here", str(status.parts)),
        ("rows read, written, in all", f"{totals.read}, {totals.written}"),
        ("rows with an error", f"{totals.errors}" + (f"; the first: {totals.first_error}" if totals.errors else "")),
        *summary.answers_rows(totals),
        ("rows left out by the selection", str(totals.read - totals.written - totals.errors)),
        ("job", f"finished; see {target / 'summary.html'}" if (target / SUCCESS).exists() else unfinished),
    ]
    show(Console(stderr=True), folder, rows)
    if not status.parts and not (target / SUCCESS).exists():
        raise LeasedError(
            f"{folder}: other workers have all the parts that are left; start again when they are done, or with --wait"
        )


def _local(engine: str) -> Literal["local"]:
    if engine != "local":
        raise ConfigError(f"--engine: expected local or ray, got '{engine}'")
    return "local"


def share_of(text: str) -> float:
    """``10%`` or ``0.1`` as a share.

    Raises:
        ConfigError: not a share in (0, 1].
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"--keep-top '{text}': expected a share, for example 10% or 0.1")
    return share
