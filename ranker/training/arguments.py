"""The library's arguments for a run, and where the run is logged."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ranker.config import RunConfig
from ranker.errors import ConfigError, nearest
from ranker.training.callbacks import SELECTED_BY
from ranker.training.launch import Launch

CHECKPOINTING: Final = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)
"""The library's name of recomputing activations; it has the first one since 5.23."""


def arguments(config: RunConfig, output: Path, launch: Launch) -> TrainingArguments:
    """The library's arguments for this run, without the interval of evaluations, which the plan decides."""
    training = config.training
    args = TrainingArguments(
        output_dir=str(output / "steps"),
        num_train_epochs=1,  # the plan holds all epochs
        learning_rate=training.learning_rate or 0.0,  # set by ``resolved``
        weight_decay=training.weight_decay,
        lr_scheduler_type=training.lr_scheduler_type,
        max_grad_norm=training.max_grad_norm,
        gradient_accumulation_steps=training.accumulation(launch.world),
        torch_compile=training.torch_compile,
        bf16=bf16(training.precision),
        use_cpu=not torch.cuda.is_available(),
        seed=training.seed,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,  # both are set once the number of steps is known
        save_steps=1,
        save_total_limit=2,
        load_best_model_at_end=not launch.sharded,  # shards cannot take whole weights back; see _sharded
        metric_for_best_model=SELECTED_BY,
        greater_is_better=True,
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it waits for the device at every step
        report_to=_installed(training.report_to),
        run_name=output.name,
        remove_unused_columns=False,
        disable_tqdm=True,  # the stage is the bar
        **{CHECKPOINTING: training.activation_checkpointing},
    )
    args._n_gpu = min(1, args.n_gpu)  # DataParallel would tear groups apart
    return args


def bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: asked for, or ``auto`` on a processor that computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def steps_of(value: float, steps: int) -> float:
    """A number of steps; below 1 it is a share of the run, as in transformers."""
    return value * steps if value < 1 else value


def _installed(targets: Sequence[str]) -> list[str]:
    """Where the run is logged to; TensorBoard, the default, is left out where it is not installed.

    Raises:
        ConfigError: a target that transformers does not know, or whose package is not installed.
    """
    names = [name for name in targets if name != "tensorboard" or importlib.util.find_spec("tensorboard")]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"training.report_to: unknown '{name}'{nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            raise ConfigError(f"training.report_to: '{name}' is not installed; pip install {PACKAGES[name]}")
    return names


PACKAGES: Final = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio", "comet_ml": "comet_ml"}
"""Packages of the targets that are used most."""
