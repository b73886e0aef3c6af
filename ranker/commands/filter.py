"""``ranker filter``: files of any size through a model, and what is worth keeping of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from ranker.batch import BatchScorer
from ranker.commands.tables import show
from ranker.errors import ConfigError
from ranker.jobs import run as jobs
from ranker.jobs.parts import SUCCESS
from ranker.jobs.select import Make, Selection


def run(
    inputs: Sequence[str],
    model: str,
    folder: str,
    *,
    columns: Mapping[str, str],
    keep: str | None,
    keep_top: str | None,
    best_of: bool,
    pairs: bool,
    drop_ties: bool,
    part_rows: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Do this worker's parts and print what became of them.

    Raises:
        ConfigError: ``--best-of`` and ``--pairs`` together, or a share that is none.
    """
    if best_of and pairs:
        raise ConfigError("--best-of and --pairs make different rows; choose one of them")
    make: Make = "best" if best_of else "pairs" if pairs else "rows"
    selection = Selection(keep=keep, make=make, drop_ties=drop_ties)
    scorer = BatchScorer(model, columns=columns, **options)
    target = Path(folder)
    bar = tqdm(desc="filter", unit=" rows", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
    with bar:
        if keep_top is None:
            done = jobs.score(scorer, inputs, target, part_rows=part_rows, selection=selection, progress=bar.update)
        else:
            done = jobs.top(
                scorer, inputs, target, _share(keep_top), part_rows=part_rows, selection=selection, progress=bar.update
            )
    finished = (target / SUCCESS).exists()
    rows = [
        ("parts done here", f"{done.own} of {done.parts}"),
        ("rows read, written", f"{done.read}, {done.written}"),
        ("rows with an error", str(done.errors)),
        ("job", "finished" if finished else "other workers are at it, or it was stopped; start again to go on"),
    ]
    show(Console(stderr=True), folder, rows)


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise ConfigError(f"--keep-top '{text}': expected a share, for example 10% or 0.1") from error
