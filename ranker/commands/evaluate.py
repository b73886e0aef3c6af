"""``ranker eval``: models on labelled rows, beside their baselines and each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ranker.commands.tables import show
from ranker.data.load import load_preferences
from ranker.errors import ConfigError, DataError, RegressionError
from ranker.evaluation.evaluate import SCHEMA_VERSION, Evaluation, calibration, evaluate
from ranker.evaluation.report import writer
from ranker.evaluation.report.tables import compared, headline
from ranker.evaluation.robustness import robustness
from ranker.evaluation.statistics.paired import Paired, paired
from ranker.evaluation.suites import suite
from ranker.loading import load
from ranker.runtime import manifest
from ranker.runtime.session import Device
from ranker.scoring.protocol import Scorer

logger = logging.getLogger(__name__)


def run(
    models: Sequence[str],
    data: str,
    *,
    columns: Mapping[str, str],
    train: str | None,
    output: str | None,
    baseline: str | None,
    calibrate: bool,
    device: Device,
    threads: int | None,
) -> None:
    """Evaluate, print the tables, and write the report's files where asked.

    Raises:
        ConfigError: a model is named twice, or one to calibrate is no ``model.onnx``.
        DataError: there is no such baseline.
        RegressionError: the first model is significantly worse than the baseline; the report is complete.
    """
    _check(models, baseline)
    console = Console()
    if suite.is_suite(data):
        if calibrate or baseline or train or columns:
            raise ConfigError(f"suite '{data}' takes no --calibrate, --baseline, --train or --column")
        _suite(console, models, data, output, device, threads)
        return
    if calibrate and not all(Path(model).suffix == ".onnx" for model in models):
        raise ConfigError("--calibrate writes into model.onnx files; export the checkpoint first")
    rows = load_preferences([data], columns=columns).preferences
    training = load_preferences([train], columns=columns).preferences if train else []
    scorers = {model: load(model, device=device, threads=threads).scorer for model in models}
    evaluations: dict[str, Evaluation] = {}
    for model, scorer in scorers.items():
        evaluation = evaluate(scorer, rows, train=training)
        report = evaluation.report | {"robustness": robustness(scorer, rows)}
        evaluations[model] = replace(evaluation, report=report)
        show(console, f"{model} on {data}", headline(report))
    differences = _differences(evaluations, baseline)
    lines = [(f"{second} - {first}", compared(found, first, second)) for (first, second), found in differences.items()]
    if lines:
        show(console, "difference in accuracy", lines)
    if output is not None:
        writer.write(Path(output), f"{', '.join(models)} on {data}", evaluations, lines, {"data": [data]})
        console.print(f"report {Path(output) / 'report.html'}, metrics {Path(output) / writer.METRICS}")
    if calibrate:
        _calibrate(console, scorers, evaluations, data)
    if baseline and (first := next(iter(differences.values()))) is not None and first.worse:
        raise RegressionError(f"{models[0]} is significantly worse than {baseline}: {lines[0][1]}")


def _calibrate(
    console: Console, scorers: Mapping[str, Scorer], evaluations: Mapping[str, Evaluation], data: str
) -> None:
    """Measure all models before the first file is written, and print what was written."""
    measured = {model: calibration(scorer, evaluations[model], data) for model, scorer in scorers.items()}
    for model, values in measured.items():
        manifest.calibrate(Path(model), values)
        fitted = evaluations[model].report["calibration"]["temperature"]
        rows = [
            ("temperature", f"{values.temperature:.3f}"),
            ("log-loss on the half that it was not fitted on", f"{fitted['before']:.3f} to {fitted['after']:.3f}"),
            ("mean and deviation of the scores", f"{values.mean:.3f}, {values.std:.3f}"),
            ("measured on", f"{values.n} comparisons of {data}"),
        ]
        show(console, f"calibration written to {model}", rows)


def _suite(
    console: Console, models: Sequence[str], data: str, output: str | None, device: Device, threads: int | None
) -> None:
    rows = suite.load(data)
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        figures, failed = suite.evaluate(load(model, device=device, threads=threads).scorer, data, rows)
        show(console, f"{model} on {data}", [(name, str(value)) for name, value in figures.items()])
        found[model] = {name: asdict(value) for name, value in figures.items()} | {"failed": failed}
        if failed:
            logger.warning("%d of %d rows could not be scored and count as lost", failed, len(rows))
    if output is not None:
        report = {"schema_version": SCHEMA_VERSION, "suite": data, "models": found}
        writer.write_report(report, Path(output) / writer.METRICS)


def _check(models: Sequence[str], baseline: str | None) -> None:
    if len(set(models)) < len(models):
        raise ConfigError(f"expected every model once, got {', '.join(models)}")
    if baseline is not None and not Path(baseline).is_file():
        raise DataError(baseline, "--baseline", "expected an existing metrics.json, found none; check the path")


def _differences(evaluations: Mapping[str, Evaluation], baseline: str | None) -> dict[tuple[str, str], Paired | None]:
    """By the names of two models the second against the first: the first model against the baseline, others against it.

    None where two have no comparison in common.
    """
    (name, mine), *others = evaluations.items()
    found: dict[tuple[str, str], Paired | None] = {}
    if baseline is not None:
        before, earlier = writer.baseline(Path(baseline), mine)
        found[f"{before} (baseline {baseline})", name] = paired(earlier, mine.comparisons)
    return found | {(name, other): paired(mine.comparisons, theirs.comparisons) for other, theirs in others}
