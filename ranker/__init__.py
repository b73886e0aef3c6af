"""Rankers and reward models: train on preferences, export to one file, score without torch.

``load`` opens a model and gives a ``Ranker``; ``BatchScorer`` scores columns for pipelines. Everything is imported on
first use, so ``import ranker`` costs nothing.

Example:
    >>> import ranker
    >>> model = ranker.load("runs/pairrm/model.onnx")
    >>> model.rank("What is 2 + 2?", ["It is 5.", "It is 4."]).order.tolist()
    [1, 0]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.batch_scorer import BatchScorer
    from ranker.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ExportError,
        InterruptedRunError,
        JobError,
        MissingExtraError,
        ModelFileError,
        ParityError,
        RankerError,
        RegressionError,
        ScoringError,
    )
    from ranker.loading import Ranker, load
    from ranker.ranking.ranks import Ranking
    from ranker.records import Group, Message, Preference
    from ranker.scoring.protocol import Calibration, GroupScores, Scorer, ScorerInfo

__version__ = "0.1.0"

_HOME = {
    "BatchScorer": "batch_scorer",
    "Calibration": "scoring.protocol",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "ExportError": "errors",
    "Group": "records",
    "GroupScores": "scoring.protocol",
    "InterruptedRunError": "errors",
    "JobError": "errors",
    "Message": "records",
    "MissingExtraError": "errors",
    "ModelFileError": "errors",
    "ParityError": "errors",
    "Preference": "records",
    "Ranker": "loading",
    "RankerError": "errors",
    "Ranking": "ranking.ranks",
    "RegressionError": "errors",
    "Scorer": "scoring.protocol",
    "ScorerInfo": "scoring.protocol",
    "ScoringError": "errors",
    "load": "loading",
}
"""Where each public name lives."""

__all__ = [
    "BatchScorer",
    "Calibration",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExportError",
    "Group",
    "GroupScores",
    "InterruptedRunError",
    "JobError",
    "Message",
    "MissingExtraError",
    "ModelFileError",
    "ParityError",
    "Preference",
    "Ranker",
    "RankerError",
    "Ranking",
    "RegressionError",
    "Scorer",
    "ScorerInfo",
    "ScoringError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"ranker.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ranker' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
