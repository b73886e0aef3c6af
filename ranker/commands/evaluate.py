"""``ranker eval``: a model on labelled rows."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ranker.commands.tables import show
from ranker.data.load import load_preferences
from ranker.evaluation.run import evaluate, table, write_report
from ranker.loading import load
from ranker.runtime.session import Device


def run(model: str, data: str, *, train: str | None, output: str | None, device: Device, threads: int | None) -> None:
    """Evaluate, print the table, and write the report where asked."""
    scorer = load(model, device=device, threads=threads).scorer
    training = load_preferences([train]).preferences if train else []
    report = evaluate(scorer, load_preferences([data]).preferences, train=training).report
    if output is not None:
        write_report(report, Path(output))
    show(Console(), f"{model} on {data}", table(report))
