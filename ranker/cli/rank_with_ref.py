"""``ranker rank-with-ref``."""

from __future__ import annotations

from ranker.cli import stream
from ranker.cli.options import (
    AverageOrders,
    Column,
    Device,
    Input,
    Model,
    Option,
    Output,
    Quiet,
    Rate,
    Threads,
    columns_of,
    load_options,
)


def main(
    model: Model,
    source: Input = "-",
    target: Output = "-",
    column: Column = None,
    device: Device = "auto",
    threads: Threads = None,
    option: Option = None,
    average_orders: AverageOrders = True,
    fail_on_error_rate: Rate = 1.0,
    quiet: Quiet = False,
) -> None:
    """Compare every candidate of a row with its reference (column reference).

    Adds the columns of score: log-odds of being better than the reference, which compare across prompts.

    Example: ranker rank-with-ref --model model.onnx -i rows.jsonl -o scored.jsonl
    """
    stream.run(
        "rank-with-ref",
        model,
        source,
        target,
        columns=columns_of(column),
        device=device,
        threads=threads,
        average_orders=average_orders,
        **load_options(option),
        max_error_rate=fail_on_error_rate,
        quiet=quiet,
    )
