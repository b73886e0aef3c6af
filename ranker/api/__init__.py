"""The calls that a whole job takes: train, evaluate, export, convert, filter. The command line calls these."""

from __future__ import annotations

from ranker.api.checkpoints import convert, inspect_checkpoint, merge_adapter, verify_checkpoint
from ranker.api.evaluation import evaluate
from ranker.api.exporting import export_onnx
from ranker.api.files import filter_files, score_file
from ranker.api.training import TrainResult, train

__all__ = [
    "TrainResult",
    "convert",
    "evaluate",
    "export_onnx",
    "filter_files",
    "inspect_checkpoint",
    "merge_adapter",
    "score_file",
    "train",
    "verify_checkpoint",
]
