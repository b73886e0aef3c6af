"""Learning and margin curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranker.extras import require
from ranker.metrics import Comparisons, leads


def learning_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and accuracy, or correlation where nothing is compared, of training and validation over optimizer steps."""
    drawn, (left, right) = figure(2)
    compares = any(key in entry for entry in history for key in ("accuracy", "eval_accuracy"))
    second = ("accuracy", "pairwise accuracy") if compares else ("spearman", "Spearman of score and label")
    for axis, name, label in ((left, "loss", "loss"), (right, *second)):
        for key, style in ((name, "-"), (f"eval_{name}", "o-")):
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            if points:
                axis.plot(
                    *zip(*points, strict=True), style, label="validation" if key.startswith("eval") else "training"
                )
        axis.set_xlabel("optimizer step")
        axis.set_ylabel(label)
        if axis.lines:
            axis.legend()
    if compares:
        right.axhline(0.5, color="grey", linewidth=0.8)
    save(drawn, path)


def margins(compared: Comparisons) -> Any:
    """Margins of the preferred answer: their histogram in logits, and accuracy by the size of the margin."""
    decided = compared.where(compared.targets != 0.5)
    ahead = leads(decided)
    drawn, (left, right) = figure(2)
    left.hist(ahead, bins=40)
    left.axvline(0, color="grey", linewidth=0.8)
    left.set_xlabel("margin of the preferred answer (logits)")
    left.set_ylabel("comparisons")
    order = np.argsort(-np.abs(ahead))
    covered = np.arange(1, len(order) + 1)
    right.plot(covered / len(order), np.cumsum(ahead[order] > 0) / covered)
    right.set_xlabel("share of comparisons, largest margins first")
    right.set_ylabel("accuracy among them")
    return drawn


def figure(columns: int, *, width: float = 5, height: float = 3.6) -> Any:
    """A figure and its axes side by side; inches."""
    require("matplotlib").use("Agg")
    return require("matplotlib.pyplot").subplots(1, columns, figsize=(width * columns, height), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120)
    require("matplotlib.pyplot").close(drawn)
