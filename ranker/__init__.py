"""Rankers and reward models: train on preferences, export to one file, score without torch.

``load`` opens a model, ``train`` makes one, ``evaluate`` measures it, ``export_onnx`` writes it as one file;
``filter_files`` and ``BatchScorer`` score data. Everything is imported on first use, so importing costs nothing.

Example:
    >>> import ranker
    >>> model = ranker.load("runs/pairrm/model.onnx")
    >>> model.rank("What is 2 + 2?", ["It is 5.", "It is 4."]).order.tolist()
    [1, 0]
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.api.checkpoints import convert, inspect_checkpoint, merge_adapter, verify_checkpoint
    from ranker.api.evaluation import evaluate
    from ranker.api.exporting import export_onnx
    from ranker.api.files import check_job, filter_files, score_file, select_rows
    from ranker.api.training import TrainResult, train
    from ranker.batch_scorer import BatchScorer
    from ranker.checkpoints.report import CheckpointReport
    from ranker.client import AsyncClient, Client
    from ranker.config import RunConfig, load_config
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
        ServerError,
    )
    from ranker.evaluation.evaluation_report import EvaluationReport
    from ranker.export.parity import ParityReport
    from ranker.jobs.integrity import JobParts
    from ranker.jobs.job import JobStatus
    from ranker.loading import Ranker, load
    from ranker.ranking.ranks import Ranking
    from ranker.records import BadRow, Group, Message, Preference
    from ranker.scoring.protocol import Calibration, GroupScores, Scorer, ScorerInfo
    from ranker.training.interrupts import TrainingStopped
    from ranker.training.losses import AnswerLoss, ComparisonLoss, ListLoss, Loss

__version__ = "0.1.0"

_HERE = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_HERE, "export")):  # a checkout without symbolic links, as on Windows
    __path__.append(os.path.dirname(_HERE))

_HOME = {
    "AnswerLoss": "training.losses",
    "AsyncClient": "client",
    "BadRow": "records",
    "BatchScorer": "batch_scorer",
    "Calibration": "scoring.protocol",
    "CheckpointError": "errors",
    "CheckpointReport": "checkpoints.report",
    "Client": "client",
    "ComparisonLoss": "training.losses",
    "ConfigError": "errors",
    "DataError": "errors",
    "EvaluationReport": "evaluation.evaluation_report",
    "ExportError": "errors",
    "Group": "records",
    "GroupScores": "scoring.protocol",
    "InterruptedRunError": "errors",
    "JobError": "errors",
    "JobParts": "jobs.integrity",
    "JobStatus": "jobs.job",
    "ListLoss": "training.losses",
    "Loss": "training.losses",
    "Message": "records",
    "MissingExtraError": "errors",
    "ModelFileError": "errors",
    "ParityError": "errors",
    "ParityReport": "export.parity",
    "Preference": "records",
    "Ranker": "loading",
    "RankerError": "errors",
    "Ranking": "ranking.ranks",
    "RegressionError": "errors",
    "RunConfig": "config",
    "Scorer": "scoring.protocol",
    "ScorerInfo": "scoring.protocol",
    "ScoringError": "errors",
    "ServerError": "errors",
    "TrainResult": "api.training",
    "TrainingStopped": "training.interrupts",
    "check_job": "api.files",
    "convert": "api.checkpoints",
    "evaluate": "api.evaluation",
    "export_onnx": "api.exporting",
    "filter_files": "api.files",
    "inspect_checkpoint": "api.checkpoints",
    "load": "loading",
    "load_config": "config",
    "merge_adapter": "api.checkpoints",
    "score_file": "api.files",
    "select_rows": "api.files",
    "train": "api.training",
    "verify_checkpoint": "api.checkpoints",
}
"""Where each public name lives."""

__all__ = [
    "AnswerLoss",
    "AsyncClient",
    "BadRow",
    "BatchScorer",
    "Calibration",
    "CheckpointError",
    "CheckpointReport",
    "Client",
    "ComparisonLoss",
    "ConfigError",
    "DataError",
    "EvaluationReport",
    "ExportError",
    "Group",
    "GroupScores",
    "InterruptedRunError",
    "JobError",
    "JobParts",
    "JobStatus",
    "ListLoss",
    "Loss",
    "Message",
    "MissingExtraError",
    "ModelFileError",
    "ParityError",
    "ParityReport",
    "Preference",
    "Ranker",
    "RankerError",
    "Ranking",
    "RegressionError",
    "RunConfig",
    "Scorer",
    "ScorerInfo",
    "ScoringError",
    "ServerError",
    "TrainResult",
    "TrainingStopped",
    "__version__",
    "check_job",
    "convert",
    "evaluate",
    "export_onnx",
    "filter_files",
    "inspect_checkpoint",
    "load",
    "load_config",
    "merge_adapter",
    "score_file",
    "select_rows",
    "train",
    "verify_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from ranker.extras import require

        return getattr(require(f"ranker.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ranker' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
