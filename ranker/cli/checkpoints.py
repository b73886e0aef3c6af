"""The verbs for checkpoints of whatever trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ranker.cli.options import command

HeadPrefix = Annotated[str | None, typer.Option("--head-prefix", help="the head's name, where it is an unusual one")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="read .bin weights, of a source you trust")]
To = Annotated[
    str,
    typer.Option("--to", help="native, hf, openrlhf, crossencoder, pairrm-hf, llama-factory; triton of a model.onnx"),
]
NewFolder = Annotated[str, typer.Argument(help="a new folder")]


def inspect(
    path: Annotated[str, typer.Argument(help="a checkpoint of whatever trainer: a folder or a hub name")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Say what a checkpoint is, whether it is whole, and how to repair it; reads headers alone, runs nothing."""
    command("checkpoints.inspect").run(path, as_json=as_json, head_prefix=head_prefix, allow_pickle=allow_pickle)


def verify(
    path: Annotated[str, typer.Argument(help="a checkpoint: a folder or a hub name")],
    against: Annotated[str | None, typer.Option(help="a checkpoint that must score the same")] = None,
    data: Annotated[str | None, typer.Option(help="labelled rows, for the accuracy")] = None,
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Load a checkpoint and prove it whole: tensors, head, padding and batches, checksums; exit code 4 if it is not.

    Compares every file with SHA256SUMS, and writes that file if it is missing.
    """
    command("checkpoints.verify").run(
        path, against=against, data=data, head_prefix=head_prefix, allow_pickle=allow_pickle
    )


def convert(
    source: Annotated[str, typer.Argument(help="a reward model of whatever trainer: a folder or a hub name")],
    target: NewFolder,
    to: To = "native",
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write a reward model in another format; its own loader then gives the same scores.

    Example: ranker convert my-openrlhf-rm my-rm --to hf
    """
    command("checkpoints.convert").run(source, target, to, head_prefix=head_prefix, allow_pickle=allow_pickle)


def merge(
    adapter: Annotated[str, typer.Argument(help="a folder with a LoRA or QLoRA adapter")],
    target: NewFolder,
    to: To = "native",
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write an adapter and its base model, in full precision, as one model; an adapter without its head is refused."""
    command("checkpoints.convert").merge(adapter, target, to, head_prefix=head_prefix, allow_pickle=allow_pickle)


def add(app: typer.Typer) -> None:
    """Add them to the command line."""
    verbs: dict[str, Callable[..., None]] = {"inspect": inspect, "verify": verify, "convert": convert, "merge": merge}
    for name, verb in verbs.items():
        app.command(name)(verb)
