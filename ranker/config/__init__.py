"""The configuration of a training run: YAML plus ``key=value``, strict, defaults in one place."""

from __future__ import annotations

from ranker.config.files import RECIPES, dump_config, load_config, recipes
from ranker.config.losses import LossConfig
from ranker.config.models import MODEL_TYPES, GateConfig, ModelConfig
from ranker.config.run import DataConfig, LoraConfig, RunConfig, TrainingConfig
from ranker.config.section import ExportPrecision, Pooling, Precision, Quantization

__all__ = [
    "MODEL_TYPES",
    "RECIPES",
    "DataConfig",
    "ExportPrecision",
    "GateConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "Pooling",
    "Precision",
    "Quantization",
    "RunConfig",
    "TrainingConfig",
    "dump_config",
    "load_config",
    "recipes",
]
