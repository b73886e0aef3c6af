"""``ranker filter``: files of any size through a model, and what is worth keeping of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from tqdm import tqdm

from ranker.batch_scorer import BatchScorer
from ranker.commands.tables import show
from ranker.errors import ConfigError, InterruptedRunError
from ranker.extras import require
from ranker.jobs import job as jobs
from ranker.jobs import summary
from ranker.jobs.job import SCORED
from ranker.jobs.parts import SUCCESS
from ranker.jobs.select import OutputRows, Selection
from ranker.runtime.session import available_cores
from ranker.signals import number_of

Engine = Literal["local", "ray"]


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
    engine: Engine,
    workers: int | None,
    address: str | None,
    threads: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Do this worker's parts and print what became of them.

    Raises:
        ConfigError: ``--best-of`` and ``--pairs`` together, an invalid share, an unknown engine, or workers and
            an address without Ray.
        InterruptedRunError: Ctrl-C or SIGTERM; finished parts are kept, and the same command continues.
    """
    if best_of and pairs:
        raise ConfigError("--best-of and --pairs make different rows; choose one of them")
    output_rows: OutputRows = "best" if best_of else "pairs" if pairs else "rows"
    selection = Selection(keep=keep, output_rows=output_rows, drop_ties=drop_ties)
    work = None
    if engine == "ray":
        workers = workers or max(1, available_cores() // (threads or 1))
        threads = threads or max(1, available_cores() // workers)
        if options["device"] == "auto":
            options["device"] = "cpu"  # Ray gives GPUs to those who ask for them
        model = os.path.abspath(model) if Path(model).exists() else model
        folder = os.path.abspath(folder)
        gpus = int(options["device"] in ("cuda", "tensorrt"))
        work = require("ranker.jobs.cluster").spread(workers, address=address, cpus=threads, gpus=gpus)
    elif engine != "local" or workers or address:
        raise ConfigError(f"expected --engine local, or ray for --workers and --address, got '{engine}'")
    scorer = BatchScorer(model, columns=columns, threads=threads, **options)
    target = Path(folder)
    common: Any = {"part_rows": part_rows, "selection": selection, "work": work}
    bar = tqdm(desc="filter", unit=" rows", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
    try:
        with bar:
            if keep_top is None:
                done = jobs.score(scorer, inputs, target, progress=bar.update, **common)
            else:
                done = jobs.top(scorer, inputs, target, _share(keep_top), progress=bar.update, **common)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(_kept(target), number_of(error)) from error
    waiting = "other workers are at it, or it was stopped; start again to go on"
    found = summary.counted(target)
    rows = [
        ("parts done here", str(done.parts)),
        ("rows read, written, in all", f"{found.read}, {found.written}"),
        ("rows with an error", f"{found.errors}" + (f"; the first: {found.first_error}" if found.errors else "")),
        ("job", f"finished; see {target / 'summary.html'}" if (target / SUCCESS).exists() else waiting),
    ]
    show(Console(stderr=True), folder, rows)


def _kept(folder: Path) -> str:
    """What an interrupted job has done so far."""
    stage = "selecting" if (folder / SCORED / SUCCESS).exists() else "scoring"
    job = folder / SCORED if (folder / SCORED).exists() and stage == "scoring" else folder
    done, total = jobs.done_of(job)
    if stage == "selecting" and total == 0:
        return f"stopped; all parts are scored and kept in {folder / SCORED}. The same command continues"
    if total == 0:
        return f"stopped before {folder} was begun; nothing was written"
    return f"stopped while {stage}; {done} of {total} parts in {folder} are done and kept. The same command continues"


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"--keep-top '{text}': expected a share, for example 10% or 0.1")
    return share
