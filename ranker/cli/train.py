"""``ranker train``."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranker.cli.options import Column, Quiet, columns_of
from ranker.errors import CheckpointError, ConfigError, InterruptedRunError, OutputError
from ranker.signals import ignore, number_of

if TYPE_CHECKING:
    from ranker.api.training import TrainResult
    from ranker.config import RunConfig
    from ranker.training.launch import Launch

OFFLINE = "offline"
"""The packaged encoder, as ``model.name_or_path`` names it."""


def main(
    recipe: Annotated[str | None, typer.Argument(help="a recipe's name, or a YAML file")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="train the packaged MiniLM encoder (22M); nothing is fetched")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="list the recipes")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="show all settings of the run as YAML")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what will happen: rows, steps, rates, three rows as they are read")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the interrupted run in output_dir")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="delete an earlier run in output_dir first")] = False,
    column: Column = None,
    quiet: Quiet = False,
) -> None:
    """Train a ranker from a recipe, evaluate it and export it to ONNX.

    Example: ranker train pairrm data.train='[my/pairs.jsonl]' training.num_train_epochs=2
    """
    from ranker.config import load_config, recipes
    from ranker.config.files import explained_config

    if list_recipes:
        for name, path in recipes().items():
            typer.echo(f"{name:26}{path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")
        return
    if recipe is None:
        raise ConfigError("expected a recipe or a YAML file; ranker train --list shows the recipes")
    columns = columns_of(column)
    changes = [
        *(overrides or []),
        *([f"model.name_or_path={OFFLINE}"] if offline else []),
        *([f"data.columns.{name}={source}" for name, source in columns.items()]),
    ]
    config = load_config(recipe, changes)
    if print_config:
        typer.echo(explained_config(config), nl=False)
    elif dry_run:
        from ranker.api.training import check_rows

        check_rows(config)
        from ranker.training.preview import preview

        for line in preview(config):
            typer.echo(line)
    else:
        named = [f"--column={name}={source}" for name, source in columns.items()]
        again = ["ranker", "train", recipe, *(overrides or []), *(["--offline"] if offline else []), *named, "--resume"]
        run(config, shlex.join(again), resume=resume, overwrite=overwrite, progress=not quiet)


def run(config: RunConfig, again: str, *, resume: bool = False, overwrite: bool = False, progress: bool = True) -> None:
    """Train, and print the tables; an interruption says where the run stands and which command continues it.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM.
    """
    from rich.console import Console

    from ranker.api.training import train
    from ranker.training.launch import launched

    console = Console(soft_wrap=True)
    launch = launched(config)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if launch.main:
            console.print(line, highlight=False, markup=False)

    try:
        result = train(config, resume=resume, overwrite=overwrite, log=log, progress=progress)
    except KeyboardInterrupt as error:
        trained = any(line.startswith("trained in") for line in lines)
        raise _stopped(_state(config, error, trained, overwrite, again, launch), error, launch) from error
    except OutputError as error:
        raise _unwritten(config, error, again, launch) from error
    if not launch.main:
        sys.stderr.flush()
        os._exit(0)  # a helper process is done; threads of its process group can abort an orderly exit
    try:
        for line in summary(result):
            console.print(line, highlight=False, markup=False)
        ignore()
    except KeyboardInterrupt as error:
        text = f"stopped after the run; all of its files are in {config.output_dir}"
        raise InterruptedRunError(text, number_of(error)) from error


def summary(result: TrainResult) -> Iterator[str]:
    """What a run leaves, in lines: the figure, what is hardest, the files, and the next command."""
    from ranker.evaluation.report.tables import best_baseline, worst_kinds

    if result.evaluation is not None:
        evaluation = next(iter(result.evaluation.evaluations.values()))
        best = best_baseline(evaluation.report)
        beside = "" if best is None else f"; best simple baseline, {best[0]}: {best[1].value:.3f}"
        yield f"\n{evaluation.report.main_figure()} on {result.evaluation.data}{beside}"
        worst = worst_kinds(evaluation.report)
        if worst:
            yield "lowest accuracy: " + ", ".join(f"{name} {share.value:.3f} (n={share.n})" for name, share in worst)
    yield ""
    files = [(result.checkpoint, "the torch model"), *_exported(result), (result.report, "all figures and charts")]
    width = max(len(str(path)) for path, _ in files)
    for path, what in files:
        yield f"  {str(path):<{width}}  {_size(path):>8}  {what}"
    yield f"\nscore with it: ranker score --model {result.model} -i ROWS.jsonl -o SCORED.jsonl"


def _exported(result: TrainResult) -> Iterator[tuple[Path, str]]:
    """The exported files: how far each is from the torch model, and how fast beside the first."""
    speeds = result.answers_per_second
    first = next(iter(speeds), None)
    for path, parity in result.exports.items():
        agreement = "" if parity.tau_b is None else f", ranks agree by {parity.tau_b:.4f}"
        speed = ""
        if path in speeds and first is not None:
            times = "" if path == first else f", {speeds[path] / speeds[first]:.2f} times {first.name}"
            speed = f", about {speeds[path]:,.0f} answers per second here{times}"
        yield path, f"differs by {parity.max_difference:.1e} logits at most{agreement}{speed}"


def _size(path: Path) -> str:
    beside = path.with_name(f"{path.name}.data")  # weights beyond 2 GB
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path, beside]
    size = float(sum(file.stat().st_size for file in files if file.is_file()))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _stopped(state: tuple[str, str], error: KeyboardInterrupt, launch: Launch) -> InterruptedRunError:
    """The error of an interrupted run; of several processes, each ends here."""
    text = "; ".join(state)
    if launch.world == 1:
        return InterruptedRunError(text, number_of(error))
    if launch.main:
        sys.stderr.write(f"ranker: {text}\n")
    sys.stderr.flush()
    os._exit(128 + number_of(error))  # threads of the process group can abort an orderly exit


def _unwritten(config: RunConfig, error: OutputError, again: str, launch: Launch) -> OutputError:
    """The error of a run that found the disk full, with how it continues once there is room."""
    from ranker.training.resume import newest_whole

    cause = error.__cause__
    full = getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or isinstance(cause, RuntimeError)
    if not full:
        return error
    try:
        whole = newest_whole(Path(config.output_dir))
    except CheckpointError:
        return error
    return OutputError(f"{error}; {whole} is whole. Make room, then {_how(again, launch)}")


def _how(again: str, launch: Launch) -> str:
    """How a run continues."""
    if launch.world > 1:
        return "continue with the same launch command and --resume"
    return f"continue with: {again}"


def _state(
    config: RunConfig, error: KeyboardInterrupt, trained: bool, overwrite: bool, again: str, launch: Launch
) -> tuple[str, str]:
    """Where an interrupted run stands, and how it continues."""
    from ranker.training.interrupts import TrainingStopped
    from ranker.training.resume import checkpoints_of

    how = _how(again, launch)
    output = Path(config.output_dir)
    if isinstance(error, TrainingStopped):
        return f"stopped after step {error.step} of {error.steps}, saved in {error.folder}", how
    if trained:
        folder = output / "checkpoint"
        return f"stopped after the training; the model is in {folder}, and evaluation and export are not finished", how
    checkpoints = checkpoints_of(output)
    if checkpoints and overwrite:
        state = f"stopped without saving; the newest checkpoint is {checkpoints[-1]}"
        return state, "it is the earlier run's if this one saved none; start again with the same command"
    if checkpoints:
        return f"stopped without saving; the newest checkpoint is {checkpoints[-1]}", how
    return "stopped before the first step", "nothing was trained and nothing is kept"
