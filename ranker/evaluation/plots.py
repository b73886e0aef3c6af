"""Learning and margin curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranker.extras import require
from ranker.metrics import Comparisons


def learning_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss (nats) and accuracy over optimizer steps, training and held out, from a trainer's log."""
    figure, (left, right) = _figure(2)
    for axis, name, label in ((left, "loss", "loss (nats per comparison)"), (right, "accuracy", "pairwise accuracy")):
        for key, style in ((name, "-"), (f"eval_{name}", "o-")):
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), style, label="held out" if key.startswith("eval") else "training")
        axis.set_xlabel("optimizer step")
        axis.set_ylabel(label)
        axis.legend()
    right.axhline(0.5, color="grey", linewidth=0.8)
    _save(figure, path)


def margin_curve(found: Comparisons, path: Path) -> None:
    """How far the preferred answer leads: histogram of margins in logits, and accuracy by the size of the margin."""
    decided = found.where(found.targets != 0.5)
    margins = decided.logits * np.sign(decided.targets - 0.5)
    figure, (left, right) = _figure(2)
    left.hist(margins, bins=40)
    left.axvline(0, color="grey", linewidth=0.8)
    left.set_xlabel("margin of the preferred answer (logits)")
    left.set_ylabel("comparisons")
    order = np.argsort(-np.abs(margins))
    covered = np.arange(1, len(order) + 1)
    right.plot(covered / len(order), np.cumsum(margins[order] > 0) / covered)
    right.set_xlabel("share of comparisons, largest margins first")
    right.set_ylabel("accuracy among them")
    _save(figure, path)


def _figure(columns: int) -> Any:
    require("matplotlib").use("Agg")
    return require("matplotlib.pyplot").subplots(1, columns, figsize=(5 * columns, 3.6), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    require("matplotlib.pyplot").close(figure)
