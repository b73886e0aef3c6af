"""``ranker compare``."""

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
    """Compare the two candidates of every row.

    Adds logit (> 0: the first is better), probability, winner (0, 1 or null), truncated, prompt_truncated, special_text
    and error.

    Example: ranker compare --model model.onnx -i pairs.jsonl -o compared.jsonl
    """
    stream.run(
        "compare",
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
