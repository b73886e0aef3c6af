"""The model card of a trained checkpoint: its ``README.md``, which the hub shows and indexes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ranker.config import RunConfig
from ranker.config.models import ArmoRMConfig, PointwiseConfig
from ranker.config.run import HELD_OUT_ROWS
from ranker.data.sources import known_datasets
from ranker.evaluation.model_report import ModelReport
from ranker.evaluation.report.tables import Rows, headline
from ranker.extras import require
from ranker.metrics import Estimate

NAME: Final = "README.md"
TASK: Final = "text-ranking"

HELD_OUT: Final = """## Held-out evaluation
On the test rows, which took no part in training and chose nothing."""

VALIDATION: Final = """## Validation
On the validation rows, by which the checkpoint was chosen: expect less on new rows. No test rows were given
(`data.test`)."""


def write(folder: Path, config: RunConfig, report: ModelReport, facts: Rows) -> None:
    """Write the card of the checkpoint in ``folder``.

    Args:
        folder: where the checkpoint is.
        config: the settings of the training.
        report: its evaluation on ``data.test`` or, without test rows, on ``data.validation``.
        facts: further rows about the training.
    """
    hub = require("huggingface_hub")
    name = Path(config.output_dir).name
    rows = ", ".join(config.data.test or config.data.validation) or HELD_OUT_ROWS
    named = rows if config.data.test else f"{rows} (validation: chose the checkpoint)"
    data = hub.ModelCardData(
        model_name=name,
        base_model=None if _is_here(config.model.name_or_path) else config.model.name_or_path,
        library_name="ranker-toolkit",
        pipeline_tag=TASK,
        tags=["reward-model", "preference", config.model.type],
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
    hub.ModelCard(f"---\n{data.to_yaml()}\n---\n{_text(name, config, report, facts)}").save(folder / NAME)


def _metrics(report: ModelReport) -> list[tuple[str, str, Estimate]]:
    if report.regression is not None:
        figures = report.regression
        return [("spearman", "Spearman of score and label", figures.spearman), ("rmse", "RMSE", figures.rmse)]
    return [
        ("accuracy", "pairwise accuracy", report.accuracy),
        ("log_loss", "log-loss (nats)", report.log_loss),
    ]


def _is_here(backbone: str) -> bool:
    """Whether a backbone is local, the packaged one or a folder, and not a name on the hub."""
    return backbone == "offline" or Path(backbone).exists()


def _text(name: str, config: RunConfig, report: ModelReport, facts: Rows) -> str:
    model, training = config.model, config.training
    data = config.data
    licences = known_datasets([*data.train, *data.aspects, *data.validation])
    rows: list[tuple[str, Any]] = [
        ("model type", model.type),
        ("backbone", model.name_or_path),
        ("loss", training.loss.type),
        ("longest input", f"{model.max_length} tokens"),
        ("training rows", ", ".join(config.data.train)),
        ("validation rows", ", ".join(config.data.validation) or HELD_OUT_ROWS),
        ("test rows", ", ".join(config.data.test) or "none"),
        *((f"licence of {name}", f"{known.licence}, as its card says") for name, known in licences.items()),
        *facts,
    ]
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

{HELD_OUT if config.data.test else VALIDATION}
Every number has its n and 95 % interval; the baselines show what needs no understanding.

{_table(headline(report))}

## Limits
The model has learned the preferences of its training rows, and not what is true. Answers that are cut at the longest
input are scored by what is left of them. Scores of other rows, languages and lengths than these were not measured.
"""


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    lines = [f"| {name} | {value} |".replace("\n", " ") for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])
