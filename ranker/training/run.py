"""The training run, top to bottom: data, model, plan, fit, save, check."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ranker.checkpoints import native
from ranker.config import RunConfig, dump_config
from ranker.data.load import load_preferences
from ranker.extras import offline_backbone
from ranker.models.pairwise import PairwiseModel, from_backbone
from ranker.models.scorer import TorchScorer
from ranker.records import Preference
from ranker.text.pipeline import TextPipeline
from ranker.text.tokenizer import TextTokenizer
from ranker.training.batches import Groups, RunPlan
from ranker.training.progress import AccuracyBar
from ranker.training.trainer import RankerTrainer

logger = logging.getLogger(__name__)
PROBES = 8
"""Training groups that every saved checkpoint must score like the live model."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves: the checkpoint folder, a scorer on the trained model, its data and its log."""

    folder: Path
    scorer: TorchScorer
    train: list[Preference]
    validation: list[Preference]
    history: list[dict[str, Any]]
    seconds: float
    steps: int


def train(config: RunConfig, *, resume: bool = False) -> Trained:
    """Train a ranker, saving and checking checkpoints on the way.

    Args:
        config: the run.
        resume: go on from the last checkpoint in ``output_dir``.

    Raises:
        DataError: a row that cannot be used (``on_error: raise``).
        CheckpointError: a saved checkpoint that does not score like the live model.
    """
    started = time.monotonic()
    set_seed(config.training.seed)
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    training, validation = load(config)
    model, tokenizer = start(config)
    groups = Groups(training, TextPipeline(model.layout, tokenizer))
    plan = RunPlan(
        groups,
        epochs=config.training.epochs,
        batch_tokens=config.training.batch_tokens,
        group_size=config.training.group_size,
        seed=config.training.seed,
    )
    steps = -(-len(plan) // config.training.accumulation)
    trainer = RankerTrainer(
        model,
        arguments(config, output, steps),
        groups=groups,
        plan=plan,
        validation=validation,
        tokenizer=tokenizer,
        head_lr_multiplier=config.training.head_lr_multiplier,
        loss=config.training.loss,
        centring=config.training.centring,
        consistency=config.training.consistency,
        callbacks=_callbacks(config, model, tokenizer, [p.group for p in training[:PROBES]]),
    )
    trainer.train(resume_from_checkpoint=resume or None)
    final = output / "checkpoint"
    native.save(model, tokenizer, final)
    native.check_reload(model, tokenizer, final, [p.group for p in training[:PROBES]])
    return Trained(
        folder=final,
        scorer=TorchScorer(model.eval(), tokenizer),
        train=training,
        validation=validation,
        history=trainer.state.log_history,
        seconds=time.monotonic() - started,
        steps=trainer.state.global_step,
    )


def load(config: RunConfig) -> tuple[list[Preference], list[Preference]]:
    """Training and validation records."""
    data = config.data
    options: dict[str, Any] = {"columns": data.columns, "on_error": data.on_error}
    training = load_preferences(data.train, limit=data.limit, **options)
    validation = load_preferences(data.validation, limit=data.validation_limit, **options)
    return training.preferences, validation.preferences


def start(config: RunConfig) -> tuple[PairwiseModel, TextTokenizer]:
    """A new model on its pretrained backbone; its head is newly initialised, on purpose."""
    name = offline_backbone() if config.model.backbone == "offline" else config.model.backbone
    logger.warning(
        "head newly initialised on backbone '%s': scores mean nothing before training", config.model.backbone
    )
    options = config.model.model_dump(exclude={"backbone"})
    model, tokenizer = from_backbone(name, **options)
    return model, TextTokenizer(tokenizer, model.layout.markers)


def arguments(config: RunConfig, output: Path, steps: int) -> TrainingArguments:
    """The library's arguments for this run; ``steps`` are its optimizer steps."""
    training = config.training
    interval = max(1, steps // training.evaluations)
    return TrainingArguments(
        output_dir=str(output / "steps"),
        num_train_epochs=1,  # the plan holds all epochs
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_ratio,
        lr_scheduler_type=training.scheduler,
        max_grad_norm=training.max_grad_norm,
        gradient_accumulation_steps=training.accumulation,
        activation_checkpointing=training.gradient_checkpointing,
        bf16=bf16(training.precision),
        use_cpu=not torch.cuda.is_available(),
        seed=training.seed,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        logging_steps=training.logging_steps,
        report_to=["tensorboard"] if training.tensorboard and importlib.util.find_spec("tensorboard") else [],
        remove_unused_columns=False,
        disable_tqdm=True,  # AccuracyBar is the bar
    )


def bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: asked for, or ``auto`` on a processor that computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class CheckSaved(TrainerCallback):  # type: ignore[misc]
    """Reloads every saved checkpoint and compares its scores with the live model's."""

    def __init__(self, model: PairwiseModel, tokenizer: TextTokenizer, probes: Sequence[Any]) -> None:
        self.model, self.tokenizer, self.probes = model, tokenizer, list(probes)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check the checkpoint just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        native.check_reload(self.model, self.tokenizer, folder, self.probes)


def _callbacks(
    config: RunConfig, model: PairwiseModel, tokenizer: TextTokenizer, probes: Sequence[Any]
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [AccuracyBar(), CheckSaved(model, tokenizer, probes)]
    if config.training.patience is not None:
        callbacks.append(EarlyStoppingCallback(config.training.patience))
    return callbacks
