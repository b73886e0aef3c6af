"""``ranker train``: from a recipe to a checked, evaluated, exported model."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ranker.commands.tables import parity_rows, show
from ranker.config import RunConfig, dump_config, load_config
from ranker.config.run import HELD_OUT_ROWS
from ranker.errors import InterruptedRunError
from ranker.extras import require
from ranker.signals import number_of

if TYPE_CHECKING:
    from ranker.training.train import Trained

logger = logging.getLogger(__name__)
EXAMPLES = 3
"""Rendered examples that ``--dry-run`` shows."""


def run(
    recipe: str, overrides: Sequence[str], *, print_config: bool, dry_run: bool, resume: bool, overwrite: bool = False
) -> None:
    """Train, evaluate and export; or show the configuration, or three rendered examples.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; the message says what is kept and the command that continues.
    """
    config = load_config(recipe, overrides)
    console = Console()
    if print_config:
        console.out(dump_config(config), end="", highlight=False)
    elif dry_run:
        _show_examples(config, console)
    else:
        again = shlex.join(["ranker", "train", recipe, *overrides, "--resume"])
        _trained(config, console, again, resume, overwrite)


def _trained(config: RunConfig, console: Console, again: str, resume: bool, overwrite: bool) -> None:
    """Train and do what follows; an interruption says where the run stands."""
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.training.interrupts import TrainingStopped
    from ranker.training.launch import launched
    from ranker.training.resume import only_run
    from ranker.training.train import train

    launch = launched(config)
    trained: Trained | None = None
    try:
        with only_run(Path(config.output_dir)) if launch.main else nullcontext():
            trained = train(config, resume=resume, overwrite=overwrite)
            if launch.main:
                _report_and_export(config, console, trained)
    except KeyboardInterrupt as error:
        how = f"continue with: {again}" if launch.world == 1 else "continue with the same launch command and --resume"
        if isinstance(error, TrainingStopped):
            state = f"stopped after step {error.step} of {error.steps}, saved in {error.folder}"
        elif trained is not None:
            state = f"stopped after the training; the model is in {trained.folder}, not yet evaluated and exported"
        else:
            state, how = _unsaved(Path(config.output_dir), how, overwrite)
        if launch.world == 1:
            raise InterruptedRunError(f"{state}; {how}", number_of(error)) from error
        if launch.main:
            sys.stderr.write(f"ranker: {state}; {how}\n")
        sys.stderr.flush()
        os._exit(128 + number_of(error))  # threads of the process group can abort an orderly exit
    if not launch.main:
        sys.stderr.flush()
        os._exit(0)  # a helper process is done; threads of its process group can abort an orderly exit


def _unsaved(output: Path, how: str, overwrite: bool) -> tuple[str, str]:
    """What to say of a run that stopped without a checkpoint of its last step."""
    from ranker.training.resume import checkpoints_of

    checkpoints = checkpoints_of(output)
    if checkpoints and overwrite:
        state = f"stopped without saving; the newest checkpoint is {checkpoints[-1]}"
        return state, "it is the earlier run's if this one saved none; start again with the same command"
    if checkpoints:
        return f"stopped without saving; the newest checkpoint is {checkpoints[-1]}", how
    return "stopped before the first step", "nothing was trained and nothing is kept"


def _report_and_export(config: RunConfig, console: Console, trained: Trained) -> None:
    """Evaluate, write the report, export, and add the exports to the report: a failed export loses no report."""
    from ranker.checkpoints.hub import push
    from ranker.evaluation import plots
    from ranker.evaluation.evaluate import evaluate
    from ranker.evaluation.report import card, writer
    from ranker.evaluation.report.tables import headline
    from ranker.export.write import export

    output, data = Path(config.output_dir), config.data
    split, sources = ("test", data.test) if data.test else ("validation", data.validation)
    rows = ", ".join(sources) or HELD_OUT_ROWS
    kind = (
        "held-out evaluation" if data.test else "validation (these rows chose the checkpoint: expect less on new ones)"
    )
    console.print(f"trained in {trained.seconds:.0f} s; evaluating on {len(trained.test)} {split} groups")
    plots.learning_curve(trained.history, output / "learning.png")
    evaluation = evaluate(trained.scorer, trained.test, train=trained.train)
    training = {
        "groups": len(trained.train),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "seed": config.training.seed,
    }
    name = str(trained.folder)
    facts: dict[str, Any] = {"data": list(sources), "split": split, "training": training, "exports": {}}

    def report() -> None:
        writer.write(output, f"{name} on {rows} ({split} rows)", {name: evaluation}, [], facts)

    report()
    card.write(trained.folder, config, evaluation.report, [(key, str(value)) for key, value in training.items()])
    show(console, kind, headline(evaluation.report))
    targets = {p: output / ("model.onnx" if p == "fp32" else f"model.{p}.onnx") for p in config.export.precisions}
    console.print(f"report {output / 'report.html'}; exporting {', '.join(targets)}, each tried against torch")
    summary = {k: evaluation.report[k] for k in ("accuracy", "log_loss", "brier")} | {
        "data": list(sources),
        "split": split,
    }
    parities = export(
        trained.folder, targets, rows=trained.test, data=f"{rows} ({split} rows)", evaluation=summary, on_loss="skip"
    )
    facts["exports"] = {targets[precision].name: parity for precision, parity in parities.items()}
    report()
    for exported, parity in facts["exports"].items():
        show(console, f"{exported} against the torch model", parity_rows(parity))
    if config.export.push_to_hub is not None:
        push(config.export.push_to_hub, trained.folder, [targets[precision] for precision in parities])
    written = ", ".join(str(targets[precision]) for precision in parities) or "no exported file"
    console.print(f"checkpoint {trained.folder}, report {output / 'report.html'}, {written}")


def _show_examples(config: RunConfig, console: Console) -> None:
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.models.build import new_model
    from ranker.scoring.pipeline import TextPipeline
    from ranker.training.rows import load

    training, validation, _ = load(config)
    model, tokenizer = new_model(config.model, config.output)
    pipeline = TextPipeline(model.layout, tokenizer)
    console.print(f"{len(training)} training groups, {len(validation)} validation groups; {model.layout}")
    for preference in training[:EXAMPLES]:
        packed = pipeline.pack(pipeline.tokenize([preference.group])[0])
        console.rule(f"{preference.id}: {len(packed.rows)} rows, longest {packed.length} tokens")
        for row in packed.rows:
            console.out(" ".join(tokenizer.token(int(i)) or f"<marker {i}>" for i in row.ids), highlight=False)
        cut = [i for i, flag in enumerate(packed.truncated.tolist()) if flag]
        console.print(f"answers cut: {cut or 'none'}; prompt cut: {'yes' if packed.prompt_truncated else 'no'}")
