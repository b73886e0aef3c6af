"""``ranker eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ranker.cli.options import Column, Device, Option, Quiet, Threads, columns_of, load_options
from ranker.errors import ConfigError, RegressionError

if TYPE_CHECKING:
    from rich.console import Console

    from ranker.evaluation.evaluation_report import EvaluationReport
    from ranker.loading import Ranker


def main(
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
    option: Option = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate models on labelled rows, beside baselines and each other.

    Example: ranker eval runs/pairrm/model.onnx runs/pairrm/model.int8.onnx --data data/test.jsonl -o report
    """
    from rich.console import Console

    from ranker.api.evaluation import evaluate
    from ranker.cli.terminal import show
    from ranker.evaluation.report.tables import compared, headline
    from ranker.evaluation.suites import suite
    from ranker.loading import load
    from ranker.progress import shown

    console = Console()
    options: dict[str, Any] = {"device": device, "threads": threads, **load_options(option)}
    _check_folder(output)
    if suite.is_suite(data):
        if calibrate or baseline or train_rows or column:
            raise ConfigError(f"suite '{data}' takes no --calibrate, --baseline, --train or --column")
        with shown(not quiet):
            _suite(console, models, data, output, options)
        return
    if calibrate and not all(Path(model).suffix == ".onnx" for model in models):
        raise ConfigError("--calibrate writes into model.onnx files; export the checkpoint first")
    if len(set(models)) < len(models):
        raise ConfigError(f"expected every model once, got {', '.join(models)}")
    loaded = {model: load(model, **options) for model in models}
    report = evaluate(loaded, data, train=train_rows, columns=columns_of(column), baseline=baseline, progress=not quiet)
    for model, evaluation in report.evaluations.items():
        show(console, f"{model} on {data}", headline(evaluation.report))
    lines = [
        (f"{second} - {first}", compared(difference, first, second))
        for (first, second), difference in report.differences.items()
    ]
    if lines:
        show(console, "difference in accuracy", lines)
    if output is not None:
        console.print(f"report {report.save(output)}, metrics {Path(output) / 'metrics.json'}")
    if calibrate:
        _calibrate(console, loaded, report, data)
    first = next(iter(report.differences.values()), None)
    if baseline is not None and first is not None and first.worse:
        raise RegressionError(f"{models[0]} is significantly worse than {baseline}: {lines[0][1]}")


def _check_folder(folder: str | None) -> None:
    """Refuse a folder that cannot be written before the models are loaded."""
    from ranker.data.writers import check_folder

    if folder is not None:
        check_folder(folder)


def _calibrate(console: Console, loaded: dict[str, Ranker], report: EvaluationReport, data: str) -> None:
    """Measure all models before the first file is written, and print what was written."""
    from ranker.cli.terminal import show
    from ranker.evaluation.evaluate import calibration
    from ranker.runtime import manifest

    measured = {
        model: calibration(loaded[model].scorer, evaluation, data) for model, evaluation in report.evaluations.items()
    }
    for model, values in measured.items():
        manifest.calibrate(Path(model), values)
        fitted = report[model].calibration.temperature
        change = "" if fitted is None else f"{fitted.before:.3f} to {fitted.after:.3f}"
        rows = [
            ("temperature", f"{values.temperature:.3f}"),
            ("log-loss on the half that it was not fitted on", change),
            ("mean and deviation of the scores", f"{values.mean:.3f}, {values.std:.3f}"),
            ("measured on", f"{values.n} comparisons of {data}"),
        ]
        show(console, f"calibration written to {model}", rows)


def _suite(console: Console, models: list[str], data: str, output: str | None, options: dict[str, Any]) -> None:
    from ranker.cli.terminal import show
    from ranker.evaluation.suites import suite
    from ranker.loading import load

    scorers = {model: load(model, **options).scorer for model in models}
    results = suite.evaluate_models(scorers, data, output=None if output is None else Path(output))
    for model, figures in results.items():
        show(console, f"{model} on {data}", [(name, str(value)) for name, value in figures.items()])
