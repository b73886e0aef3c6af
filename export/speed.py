"""How fast exported files score on this machine, beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from ranker.progress import stepped
from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer

ROUNDS: Final = 3
SECONDS: Final = 1.0
"""About how long a round of the first file takes."""


def answers_per_second(files: Sequence[Path], groups: Sequence[Group]) -> dict[Path, float]:
    """Answers that each file scores in a second: the median of ``ROUNDS`` rounds, the files in turn.

    A round is a quick look on the device that ``ranker.load`` takes, good for a ratio of the files and no benchmark.

    Args:
        files: ``model.onnx`` files; none gives an empty dict.
        groups: rows of the kind that will be scored; as many of the first ones are taken as a second allows.
    """
    if not files or not groups:
        return {}
    scorers = {file: OnnxScorer(file) for file in files}
    first = next(iter(scorers.values()))
    rows = list(groups[:1])
    first.score(rows)
    while len(rows) < len(groups) and _seconds(first, rows) < SECONDS / 2:
        rows = list(groups[: 2 * len(rows)])
    answers = sum(len(group.candidates) for group in rows)
    for scorer in scorers.values():
        scorer.score(rows)  # the first call plans the memory
    times: dict[Path, list[float]] = {file: [] for file in scorers}
    for _ in stepped(range(ROUNDS), "speed of the files", unit="rounds"):
        for file, scorer in scorers.items():
            times[file].append(_seconds(scorer, rows))
    return {file: answers / median(seconds) for file, seconds in times.items()}


def _seconds(scorer: OnnxScorer, rows: Sequence[Group]) -> float:
    started = time.perf_counter()
    scorer.score(rows)
    return time.perf_counter() - started
