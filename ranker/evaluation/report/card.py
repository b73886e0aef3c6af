"""The model card of a trained checkpoint: its ``README.md``, which the hub shows and indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.config import RunConfig
from ranker.config.models import ArmoRMConfig, PointwiseConfig
from ranker.config.run import HELD_OUT_ROWS, SAMPLE
from ranker.data.known_datasets import HUB
from ranker.data.sources import is_file_like, known_datasets
from ranker.evaluation.model_report import ModelReport
from ranker.evaluation.report.tables import sections
from ranker.extras import require
from ranker.metrics import Estimate
from ranker.progress import duration

NAME: Final = "README.md"
TASK: Final = "text-ranking"

OFFLINE_BASE: Final = "sentence-transformers/all-MiniLM-L6-v2"
"""The packaged backbone's name on the hub."""

WIDGET: Final = {"source_sentence": "What is 2 + 2?", "sentences": ["It is 4.", "It is 5.", "I do not know."]}
"""An example that the hub's page can show; none of the user's rows, which may be private."""

DETAILS: Final = ("Subsets", "Kinds of answers")
"""Sections that the card leaves to the report."""

HELD_OUT: Final = """## Held-out evaluation
On the test rows, which took no part in training and chose nothing."""

VALIDATION: Final = """## Validation
On the validation rows, by which the checkpoint was chosen: expect less on new rows. No test rows were given
(`data.test`)."""


def write(folder: Path, config: RunConfig, report: ModelReport, training: Mapping[str, Any]) -> None:
    """Write the card of the checkpoint in ``folder``; paths of this machine are not in it.

    Args:
        folder: where the checkpoint is.
        config: the settings of the training.
        report: its evaluation on ``data.test`` or, without test rows, on ``data.validation``.
        training: facts about the training, as in ``metrics.json``.
    """
    hub = require("huggingface_hub")
    name = Path(config.output_dir).name
    rows = _names(config.data.test or config.data.validation) or HELD_OUT_ROWS
    named = rows if config.data.test else f"{rows} (validation: chose the checkpoint)"
    data = hub.ModelCardData(
        model_name=name,
        base_model=_base_model(config.model.name_or_path),
        license=config.card.license,
        language=list(config.card.language) or None,
        datasets=_hub_names(config.data.train) or None,
        library_name="ranker-toolkit",
        pipeline_tag=TASK,
        tags=["reward-model", "preference", config.model.type],
        widget=[WIDGET],
        eval_results=[
            hub.EvalResult(
                task_type=TASK,
                dataset_type="preferences",
                dataset_name=named,
                metric_type=metric,
                metric_name=label,
                metric_value=round(estimate.value, 4),
            )
            for metric, label, estimate in _metrics(report)
            if estimate.n
        ],
    )
    hub.ModelCard(f"---\n{data.to_yaml()}\n---\n{_text(name, config, report, training)}").save(folder / NAME)


def _base_model(backbone: str) -> str | None:
    """The backbone's name on the hub; None of a local folder."""
    if backbone == "offline":
        return OFFLINE_BASE
    return None if Path(backbone).exists() else backbone


def _hub_names(sources: Sequence[str]) -> list[str]:
    """The datasets among sources, by their names on the hub and without their splits."""
    names = [source.partition(":")[0] for source in sources if not is_file_like(source) and source != SAMPLE]
    return list(dict.fromkeys(HUB[name].path if name in HUB else name for name in names))


def _names(sources: Sequence[str]) -> str:
    """What rows are called: datasets by their names, files by theirs without their folders."""
    names = [name_of_file(source) if is_file_like(source) else source for source in sources]
    return ", ".join(dict.fromkeys(names))


def name_of_file(source: str) -> str:
    """The file's or pattern's name without its folders."""
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _metrics(report: ModelReport) -> list[tuple[str, str, Estimate]]:
    if report.regression is not None:
        figures = report.regression
        return [("spearman", "Spearman of score and label", figures.spearman), ("rmse", "RMSE", figures.rmse)]
    return [
        ("accuracy", "pairwise accuracy", report.accuracy),
        ("log_loss", "log-loss (nats)", report.log_loss),
    ]


def _text(name: str, config: RunConfig, report: ModelReport, facts: Mapping[str, Any]) -> str:
    model, training = config.model, config.training
    data = config.data
    licences = known_datasets([*data.train, *data.aspects, *data.validation])
    backbone = model.name_or_path
    rows: list[tuple[str, Any]] = [
        ("model type", model.type),
        ("backbone", OFFLINE_BASE if backbone == "offline" else _names([backbone])),
        ("longest input", f"{model.max_length} tokens"),
        ("training rows", f"{facts['rows']} of {_names(data.train)}"),
        ("validation rows", _names(data.validation) or HELD_OUT_ROWS),
        ("test rows", _names(data.test) or "none"),
        *((f"licence of {name}", f"{known.licence}, as its card says") for name, known in licences.items()),
    ]
    settings: list[tuple[str, Any]] = [
        ("loss", training.loss.type),
        ("learning rate", facts["learning_rate"]),
        ("head's learning rate", f"{training.head_lr_multiplier:g} times that"),
        ("schedule", f"{training.lr_scheduler_type}, warm-up {training.warmup_steps:g}"),
        ("weight decay", training.weight_decay),
        ("epochs", training.num_train_epochs),
        ("padded tokens per step", training.tokens_per_step),
        ("precision", training.precision),
        ("seed", training.seed),
        ("steps", facts["steps"]),
        ("time", f"{duration(facts['seconds'])}, {facts['tokens_per_second']:,} padded tokens per second"),
    ]
    if isinstance(model, ArmoRMConfig):
        settings = [("seed", training.seed), ("steps of the gate", facts["steps"])]
    shown = [row for section in sections(report) if section.title not in DETAILS for row in section.rows]
    kind = "reward model" if isinstance(model, PointwiseConfig | ArmoRMConfig) else "ranker"
    return f"""
# {name}

A {kind} trained by ranker-toolkit. Higher scores are
better; a difference of two is the log-odds that the first answer is preferred.

    import ranker

    model = ranker.load("path/or/name")
    model.rank("What is 2 + 2?", ["It is 5.", "It is 4."])

## Training
{_table(rows)}

## Settings
{_table([row for row in settings if row[1] is not None])}

{HELD_OUT if config.data.test else VALIDATION}
Every number has its n and 95 % interval; the baselines show what needs no understanding.

{_table(shown)}

## Limits
The model has learned the preferences of its training rows, and not what is true. Answers that are cut at the longest
input are scored by what is left of them. Scores of other rows, languages and lengths than these were not measured.
"""


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    lines = [f"| {name} | {value} |".replace("\n", " ") for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])
