"""``ranker inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.options import AllowPickle, HeadPrefix


def main(
    path: Annotated[str, typer.Argument(help="a checkpoint of any trainer (a folder or a hub name), or a model.onnx")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
    revision: Annotated[str | None, typer.Option(help="of the hub: a branch, tag or commit")] = None,
) -> None:
    """Say what a checkpoint is, whether it is whole, and how to repair it; reads only headers, runs no code."""
    from rich.console import Console

    if Path(path).suffix == ".onnx" and Path(path).is_file():
        from ranker.cli.terminal import show
        from ranker.runtime.manifest import described

        rows = described(Path(path))
        if as_json:
            typer.echo(json.dumps(dict(rows), indent=2, ensure_ascii=False))
        else:
            show(Console(), path, rows)
        return
    from ranker.api.checkpoints import inspect_checkpoint
    from ranker.cli.terminal import show

    report = inspect_checkpoint(path, head_prefix=head_prefix, allow_pickle=allow_pickle, revision=revision)
    if as_json:
        facts = report.to_dict()
        del facts["tensors"]  # thousands of names
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        show(Console(), path, report.rows())
