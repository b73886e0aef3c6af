"""What ``make train-pairrm`` takes and gives, for the page of results.

    python benchmarks/sample.py RUN -o docs/sample.json               # RUN is runs/pairrm
    python benchmarks/sample.py --clone FOLDER -o docs/sample.json    # a clean clone in FOLDER, timed, then its run

``order_difference`` is the largest change of a score when the candidates of a group change places, over ``GROUPS``
groups of ``sample:test`` in ``ORDERS`` random orders each.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from pathlib import Path

import numpy as np
from conditions import conditions

from ranker.data.load import load_preferences
from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer

GROUPS = 40
ORDERS = 3
FIGURES = ("accuracy", "log_loss", "brier", "order_flips", "baselines", "subsets", "kinds", "prompts", "comparisons")


def main() -> None:
    """Write the figures of a run, after making it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--clone", type=Path, help="a folder that does not exist")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if (options.run is None) == (options.clone is None):
        parser.error("expected a run or --clone")
    run = options.run or options.clone / "runs" / "pairrm"
    seconds = timed(options.clone) if options.clone else {}
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (of_model,) = metrics["models"].values()
    report = conditions() | {
        "seconds": seconds,
        "training": metrics["training"],
        "exports": {name: facts for name, facts in metrics["exports"].items() if name.startswith("model")},
        "order_difference": order_difference(run / "model.onnx"),
        **{name: of_model[name] for name in FIGURES},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def timed(clone: Path) -> dict[str, float]:
    """Seconds of the installation, and of the rest of ``make train-pairrm``, in a clean clone of this repository."""
    subprocess.run(["git", "clone", "-q", str(Path(__file__).parent.parent), str(clone)], check=True)
    seconds = {}
    for name, target in (("installation", "setup"), ("the rest", "train-pairrm")):
        started = time.monotonic()
        subprocess.run(["make", target], cwd=clone, check=True)
        seconds[name] = round(time.monotonic() - started)
    return seconds


def order_difference(model: Path) -> float:
    """The largest change of a score with the order of the candidates, in logits."""
    scorer, dice = OnnxScorer(model), random.Random(0)
    groups = [row.group for row in load_preferences(["sample:test"], limit=GROUPS).preferences]
    before = [result.scores.ravel() for result in scorer.score(groups, preserve_order=True)]
    largest = 0.0
    for _ in range(ORDERS):
        orders = [dice.sample(range(len(group.candidates)), len(group.candidates)) for group in groups]
        moved = [
            Group(group.prompt, tuple(group.candidates[place] for place in order))
            for group, order in zip(groups, orders, strict=True)
        ]
        after = [result.scores.ravel() for result in scorer.score(moved, preserve_order=True)]
        changes = [np.abs(old[order] - new).max() for old, new, order in zip(before, after, orders, strict=True)]
        largest = max(largest, float(max(changes)))
    return largest


if __name__ == "__main__":
    main()
