"""``ranker inspect``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ranker.cli.options import AllowPickle, HeadPrefix


def main(
    path: Annotated[str, typer.Argument(help="a checkpoint of any trainer: a folder or a hub name")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
    revision: Annotated[str | None, typer.Option(help="of the hub: a branch, tag or commit")] = None,
) -> None:
    """Say what a checkpoint is, whether it is whole, and how to repair it; reads only headers, runs no code."""
    from rich.console import Console

    from ranker.api.checkpoints import inspect_checkpoint
    from ranker.cli.terminal import show

    report = inspect_checkpoint(path, head_prefix=head_prefix, allow_pickle=allow_pickle, revision=revision)
    if as_json:
        facts = report.to_dict()
        del facts["tensors"]  # thousands of names
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        show(Console(), path, report.rows())
