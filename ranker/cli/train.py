"""``ranker train``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranker.errors import ConfigError, InterruptedRunError

if TYPE_CHECKING:
    from ranker.config import RunConfig

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
    changes = [*(overrides or []), *([f"model.name_or_path={OFFLINE}"] if offline else [])]
    config = load_config(recipe, changes)
    if print_config:
        typer.echo(explained_config(config), nl=False)
    elif dry_run:
        from ranker.training.preview import preview

        for line in preview(config):
            typer.echo(line)
    else:
        again = ["ranker", "train", recipe, *(overrides or []), *(["--offline"] if offline else []), "--resume"]
        run(config, shlex.join(again), resume=resume, overwrite=overwrite)


def run(config: RunConfig, again: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train, and print the tables; an interruption says where the run stands and which command continues it.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM.
    """
    from rich.console import Console

    from ranker.api.training import train
    from ranker.cli.terminal import show
    from ranker.evaluation.report.tables import headline
    from ranker.signals import number_of
    from ranker.training.launch import launched

    console = Console(soft_wrap=True)
    launch = launched(config)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if launch.main:
            console.print(line, highlight=False, markup=False)

    try:
        result = train(config, resume=resume, overwrite=overwrite, log=log)
    except KeyboardInterrupt as error:
        trained = any(line.startswith("trained in") for line in lines)
        state, how = _state(config, error, trained, overwrite, again if launch.world == 1 else None)
        if launch.world == 1:
            raise InterruptedRunError(f"{state}; {how}", number_of(error)) from error
        if launch.main:
            sys.stderr.write(f"ranker: {state}; {how}\n")
        sys.stderr.flush()
        os._exit(128 + number_of(error))  # threads of the process group can abort an orderly exit
    if not launch.main:
        sys.stderr.flush()
        os._exit(0)  # a helper process is done; threads of its process group can abort an orderly exit
    if result.evaluation is not None:
        for evaluation in result.evaluation.evaluations.values():
            show(console, result.evaluation.data, headline(evaluation.report))
    for path, parity in result.exports.items():
        show(console, f"{path.name} against the torch model", parity.rows())
    written = ", ".join(map(str, result.exports)) or "no exported file"
    console.print(f"checkpoint {result.checkpoint}, report {result.report}, {written}", highlight=False)


def _state(
    config: RunConfig, error: KeyboardInterrupt, trained: bool, overwrite: bool, again: str | None
) -> tuple[str, str]:
    """Where an interrupted run stands, and how it continues; ``again`` is None in a launch of several processes."""
    from ranker.training.interrupts import TrainingStopped
    from ranker.training.resume import checkpoints_of

    how = "continue with the same launch command and --resume" if again is None else f"continue with: {again}"
    output = Path(config.output_dir)
    if isinstance(error, TrainingStopped):
        return f"stopped after step {error.step} of {error.steps}, saved in {error.folder}", how
    if trained:
        folder = output / "checkpoint"
        return f"stopped after the training; the model is in {folder}, not yet evaluated and exported", how
    checkpoints = checkpoints_of(output)
    if checkpoints and overwrite:
        state = f"stopped without saving; the newest checkpoint is {checkpoints[-1]}"
        return state, "it is the earlier run's if this one saved none; start again with the same command"
    if checkpoints:
        return f"stopped without saving; the newest checkpoint is {checkpoints[-1]}", how
    return "stopped before the first step", "nothing was trained and nothing is kept"
