"""The verbs that read rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from ranker.cli.options import (
    AverageOrders,
    Budget,
    Column,
    Device,
    Input,
    Keep,
    Model,
    Output,
    Prefilter,
    Quiet,
    Rate,
    Schedule,
    Threads,
    columns_of,
    command,
)


def _comparing(verb: str) -> Callable[..., None]:
    def command(
        model: Model,
        source: Input = "-",
        target: Output = "-",
        column: Column = None,
        device: Device = "auto",
        threads: Threads = None,
        average_orders: AverageOrders = True,
        schedule: Schedule = None,
        budget: Budget = None,
        prefilter: Prefilter = None,
        keep: Keep = 8,
        fail_on_error_rate: Rate = 1.0,
        quiet: Quiet = False,
    ) -> None:
        _run(**locals() | {"verb": verb})

    return command


COMPARING: Final = ("schedule", "budget", "prefilter", "keep")
"""Options of the verbs that may compare in pairs alone."""


def _reading(verb: str) -> Callable[..., None]:
    """The same without ``COMPARING``: typer reads a command's signature."""
    made = _comparing(verb)
    signature = inspect.signature(made, eval_str=True)
    kept = [own for own in signature.parameters.values() if own.name not in COMPARING]
    made.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return made


VERBS: Final = {
    "score": (
        _reading,
        "Score every candidate of every row.\n\nAdds the columns scores, ranks (1 = best), order, truncated and error; "
        "every input column is kept.",
    ),
    "rank": (
        _comparing,
        "Like score, with the candidates best first in the column ranked.\n\nWith --schedule or --budget candidates "
        "are compared in pairs; adds comparisons, rounds, confidence in the first, and order_flips, the comparisons "
        "whose winner depends on the order.",
    ),
    "best-of-n": (
        _comparing,
        "Choose the best candidate of every row.\n\nAdds best (its text), best_index, score, truncated and error.",
    ),
    "rank-with-ref": (
        _reading,
        "Compare every candidate of a row with its reference (column reference): scores that compare across prompts."
        "\n\nAdds the columns of score, which are log-odds of being better than the reference.",
    ),
    "compare": (
        _reading,
        "Compare the two candidates of every row.\n\nAdds logit (> 0: the first is better), probability, winner (0, 1 "
        "or null), truncated and error.",
    ),
}
"""The verbs that read rows: what makes the command, and its help."""


def _run(verb: str, column: list[str] | None, **given: Any) -> None:
    command("score").run(verb, columns=columns_of(column), **given)


def add(app: typer.Typer) -> None:
    """Add them to the command line."""
    for verb, (make, text) in VERBS.items():
        app.command(verb, help=text)(make(verb))
    app.command("filter")(filter_rows)


def filter_rows(
    inputs: Annotated[list[str], typer.Argument(help="files and globs: .jsonl, .jsonl.gz, .jsonl.zst, .parquet")],
    model: Model,
    folder: Annotated[str, typer.Option("--output", "-o", help="a folder; parts that are there are not done again")],
    keep: Annotated[str | None, typer.Option(help="an expression, e.g. 'score > 0.5 and not truncated'")] = None,
    keep_top: Annotated[
        str | None, typer.Option(help="the best share, e.g. 10%: by score, with pairwise models by margin")
    ] = None,
    best_of: Annotated[bool, typer.Option("--best-of", help="add the best candidate as best")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="the best and the worst candidate, for DPO")] = False,
    drop_ties: Annotated[bool, typer.Option("--drop-ties", help="leave out rows whose best have one score")] = False,
    part_rows: Annotated[int, typer.Option(help="rows of a part, which is what a worker loses when it dies")] = 5000,
    engine: Annotated[str, typer.Option(help="local, or ray: a pool of workers (the ray extra)")] = "local",
    workers: Annotated[int | None, typer.Option(help="of Ray, at most; default one per processor")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default one on this machine")] = None,
    column: Column = None,
    device: Device = "auto",
    threads: Threads = None,
    average_orders: AverageOrders = True,
    quiet: Quiet = False,
) -> None:
    """Score files of any size into a folder, and keep what is worth keeping; goes on where it was stopped.

    Several processes or machines may share one folder. Rows that cannot be scored go to errors-*.jsonl.

    Example: ranker filter 'data/*.parquet' --onnx model.onnx -o kept --keep-top 10% --pairs
    """
    given = {name: value for name, value in locals().items() if name != "column"}
    command("filter").run(**given, columns=columns_of(column))
