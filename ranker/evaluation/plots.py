"""The learning curve, and what all figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ranker.extras import require


def learning_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and accuracy, or correlation where nothing is compared, over optimizer steps.

    Of training and validation; accuracy on the validation rows with its 95 % interval.
    """
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
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(label)
        if axis.lines:
            axis.legend()
    bounds = [entry for entry in history if "eval_accuracy_low" in entry]
    if bounds:
        steps, centre = ([entry[name] for entry in bounds] for name in ("step", "eval_accuracy"))
        low, high = ([entry[f"eval_accuracy_{end}"] for entry in bounds] for end in ("low", "high"))
        reach = [[c - a for c, a in zip(centre, low, strict=True)], [b - c for c, b in zip(centre, high, strict=True)]]
        right.errorbar(steps, centre, yerr=reach, fmt="none", ecolor="C1", capsize=3)
    if compares:
        right.axhline(0.5, color="grey", linewidth=0.8)
    save(drawn, path)


def figure(columns: int, *, width: float = 5, height: float = 3.4) -> Any:
    """A figure and its axes side by side; inches."""
    require("matplotlib").use("Agg")
    return require("matplotlib.pyplot").subplots(1, columns, figsize=(width * columns, height), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120)
    require("matplotlib.pyplot").close(drawn)
