"""``ranker best-of-n``."""

from __future__ import annotations

from ranker.cli import stream
from ranker.cli.options import (
    AverageOrders,
    Budget,
    Column,
    Device,
    Input,
    Keep,
    Model,
    Option,
    Output,
    Prefilter,
    Quiet,
    Rate,
    Schedule,
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
    schedule: Schedule = None,
    budget: Budget = None,
    prefilter: Prefilter = None,
    keep: Keep = 8,
    fail_on_error_rate: Rate = 1.0,
    quiet: Quiet = False,
) -> None:
    """Choose the best candidate of every row.

    Adds best (its text), best_index, score, truncated, prompt_truncated, special_text and error.

    Example: ranker best-of-n --model model.onnx -i rows.jsonl -o best.jsonl
    """
    stream.run(
        "best-of-n",
        model,
        source,
        target,
        columns=columns_of(column),
        device=device,
        threads=threads,
        average_orders=average_orders,
        **load_options(option),
        schedule=schedule,
        budget=budget,
        prefilter=prefilter,
        keep=keep,
        max_error_rate=fail_on_error_rate,
        quiet=quiet,
    )
