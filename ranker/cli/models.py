"""The verbs that make, export and measure models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ranker.cli.options import Column, Device, Threads, columns_of, command


def train(
    recipe: Annotated[str, typer.Argument(help="a recipe's name, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="show the resolved configuration")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show three rendered examples with truncation")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the interrupted run in output_dir")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="delete an earlier run in output_dir first")] = False,
) -> None:
    """Train a ranker from a recipe, evaluate it and export it to ONNX.

    Example: ranker train pairrm training.learning_rate=1e-5 data.train='[my/pairs.jsonl]'
    """
    command("train").run(
        recipe, overrides or [], print_config=print_config, dry_run=dry_run, resume=resume, overwrite=overwrite
    )


def export(
    checkpoint: Annotated[str, typer.Argument(help="a checkpoint: a folder or a hub name")],
    output: Annotated[str, typer.Option("--output", "-o")] = "model.onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or int8-static")] = "fp32",
    data: Annotated[
        str | None, typer.Option(help="labelled rows for the parity gate; default the built-in sample")
    ] = None,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="write int8 that passes its limits")] = False,
) -> None:
    """Export a checkpoint to one self-contained model.onnx, after a parity check against torch."""
    command("export").run(checkpoint, output, precision=precision, data=data, allow_loss=allow_loss)


def evaluate(
    models: Annotated[list[str], typer.Argument(help="model.onnx files or checkpoints, one or several to compare")],
    data: Annotated[str, typer.Option(help="labelled rows: a file, a dataset's name, or a suite: NAME or NAME=FILE")],
    column: Column = None,
    train_rows: Annotated[
        str | None, typer.Option("--train", help="training rows, for the bag-of-words baseline")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="a folder for report.html, report.md, metrics.json and Parquet")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="an earlier metrics.json; exit code 5 if the model is significantly worse")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="write temperature, mean and deviation of the scores into model.onnx")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Evaluate models on labelled rows, beside baselines and each other.

    Example: ranker eval runs/pairrm/model.onnx runs/pairrm/model.int8.onnx --data data/test.jsonl -o report
    """
    command("evaluate").run(
        models, data, columns=columns_of(column), train=train_rows, output=output, baseline=baseline,
        calibrate=calibrate, device=device, threads=threads,
    )  # fmt: skip


def leaderboard(
    source: Annotated[str, typer.Argument(help="rows: model_a, model_b, winner (or logit), id of the prompt")],
) -> None:
    """Rate models that answered the same prompts: Bradley-Terry on Elo's scale, with intervals."""
    command("leaderboard").run(source)


def sample(folder: Annotated[str, typer.Argument(help="where the three files go")] = "data") -> None:
    """Write the sample preference set; the same bytes every time."""
    command("sample").run(folder)


def add(app: typer.Typer) -> None:
    """Add them to the command line."""
    verbs: dict[str, Callable[..., None]] = {
        "train": train,
        "export": export,
        "eval": evaluate,
        "leaderboard": leaderboard,
    }
    for name, verb in verbs.items():
        app.command(name)(verb)
    app.command("sample")(sample)
