"""``ranker score``."""

from __future__ import annotations

from typing import Annotated

import typer

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
    Text,
    Threads,
    columns_of,
    load_options,
    text_of,
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
    text: Text = None,
    rendered: Annotated[
        bool, typer.Option("--rendered", help="the chat template was applied: read 'text', or prompt + candidate")
    ] = False,
    fail_on_error_rate: Rate = 1.0,
    quiet: Quiet = False,
) -> None:
    """Score every candidate of every row.

    Adds the columns scores, ranks (1 = best), order, margin, truncated, prompt_truncated, special_text and
    error; every input column is kept.

    Example: ranker score --model model.onnx -i rows.jsonl -o scored.jsonl
    """
    stream.run(
        "score",
        model,
        source,
        target,
        columns=columns_of(column),
        device=device,
        threads=threads,
        average_orders=average_orders,
        **load_options(option),
        text=text_of(text),
        rendered=rendered,
        max_error_rate=fail_on_error_rate,
        quiet=quiet,
    )
