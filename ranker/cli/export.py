"""``ranker export``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ranker.cli.options import Quiet, Text, text_of


def main(
    checkpoint: Annotated[str, typer.Argument(help="a checkpoint: a folder or a hub name")],
    output: Annotated[str, typer.Option("--output", "-o", help="the file to write")] = "model.onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or int8-static")] = "fp32",
    data: Annotated[
        str | None, typer.Option(help="labelled rows for the parity gate; default the built-in sample")
    ] = None,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="write int8 that passes its limits")] = False,
    key_lengths: Annotated[
        bool, typer.Option("--key-lengths", help="fp16: attention reads the rows' lengths, not a mask (padding only)")
    ] = False,
    text: Text = None,
    quiet: Quiet = False,
) -> None:
    """Export a checkpoint to one self-contained model.onnx, after it was compared with torch.

    Example: ranker export runs/pairrm/checkpoint -o model.int8.onnx --precision int8 --data my/rows.jsonl
    """
    from rich.console import Console

    from ranker.api.exporting import export_onnx
    from ranker.cli.terminal import show

    name: Any = precision  # checked by the call
    parity = export_onnx(
        checkpoint,
        output,
        precision=name,
        rows=data,
        allow_loss=allow_loss,
        key_lengths=key_lengths,
        text=text_of(text),
        progress=not quiet,
    )
    show(Console(), f"{output} against {checkpoint}", parity.rows())
