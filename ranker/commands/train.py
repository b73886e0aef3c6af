"""``ranker train``: from a recipe to a checked, evaluated, exported model."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ranker.commands.tables import parity_rows, show
from ranker.config import RunConfig, dump_config, load_config
from ranker.extras import require

logger = logging.getLogger(__name__)
EXAMPLES = 3
"""Rendered examples that ``--dry-run`` shows."""


def run(recipe: str, overrides: Sequence[str], *, print_config: bool, dry_run: bool, resume: bool) -> None:
    """Train, evaluate and export; or show the configuration, or three rendered examples."""
    config = load_config(recipe, overrides)
    console = Console()
    if print_config:
        console.out(dump_config(config), end="", highlight=False)
    elif dry_run:
        _show_examples(config, console)
    else:
        _train(config, console, resume)


def _train(config: RunConfig, console: Console, resume: bool) -> None:
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.checkpoints.hub import push
    from ranker.evaluation import plots
    from ranker.evaluation.report import card, files
    from ranker.evaluation.report.tables import headline
    from ranker.evaluation.run import evaluate
    from ranker.export.command import export
    from ranker.training.run import train

    output = Path(config.output_dir)
    trained = train(config, resume=resume)
    if not trained.main:
        sys.stderr.flush()
        os._exit(0)  # a helper process is done; threads of its process group can abort an orderly exit
    data = config.data
    test = trained.test
    console.print(f"trained in {trained.seconds:.0f} s; evaluating on {len(test)} groups")
    evaluation = evaluate(trained.scorer, test, train=trained.train)
    held_out = list(data.test or data.validation)
    training = {
        "groups": len(trained.train), "steps": trained.steps, "seconds": round(trained.seconds, 1),
        "seed": config.training.seed,
    }  # fmt: skip
    plots.learning_curve(trained.history, output / "learning.png")
    summary = {k: evaluation.report[k] for k in ("accuracy", "log_loss", "brier")} | {"held_out": held_out}
    targets = {p: output / ("model.onnx" if p == "fp32" else f"model.{p}.onnx") for p in config.export.precisions}
    console.print(f"exporting {', '.join(targets)}, each tried against torch")
    parities = export(trained.folder, targets, rows=test, evaluation=summary, on_loss="skip")
    exports = {targets[precision].name: parity for precision, parity in parities.items()}
    name = str(trained.folder)
    facts = {"data": held_out, "training": training, "exports": exports}
    files.write(output, f"{name} on {', '.join(held_out)}", {name: evaluation}, [], facts)
    card.write(trained.folder, config, evaluation.report, [(key, str(value)) for key, value in training.items()])
    show(console, "held-out evaluation", headline(evaluation.report))
    for name, parity in exports.items():
        show(console, f"{name} against the torch model", parity_rows(parity))
    if config.export.push_to_hub is not None:
        push(config.export.push_to_hub, trained.folder, [targets[precision] for precision in parities])
    console.print(f"checkpoint {trained.folder}, report {output / 'report.html'}, model {output / 'model.onnx'}")


def _show_examples(config: RunConfig, console: Console) -> None:
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.models.build import start
    from ranker.text.pipeline import TextPipeline
    from ranker.training.data import load

    training, validation, _ = load(config)
    model, tokenizer = start(config.model, gate=config.gate)
    pipeline = TextPipeline(model.layout, tokenizer)
    console.print(f"{len(training)} training groups, {len(validation)} validation groups; {model.layout}")
    for preference in training[:EXAMPLES]:
        packed = pipeline.pack(pipeline.tokenize([preference.group])[0])
        console.rule(f"{preference.id}: {len(packed.rows)} rows, longest {packed.length} tokens")
        for row in packed.rows:
            console.out(" ".join(tokenizer.token(int(i)) or f"<marker {i}>" for i in row.ids), highlight=False)
        cut = [i for i, flag in enumerate(packed.truncated.tolist()) if flag]
        console.print(f"answers cut: {cut or 'none'}; prompt cut: {'yes' if packed.prompt_truncated else 'no'}")
