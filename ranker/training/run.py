"""The training run, top to bottom: data, model, plan, fit, save, check."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ranker.checkpoints import native
from ranker.config import PointLoss, RunConfig, Scheme, dump_config
from ranker.data.load import load_preferences
from ranker.errors import ConfigError
from ranker.extras import offline_backbone
from ranker.models import pairwise, reward
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
        ConfigError: settings that do not fit the data, the backbone or the run that is resumed.
        DataError: a row that cannot be used (``on_error: raise``).
        CheckpointError: a saved checkpoint that does not score like the live model.
    """
    started = time.monotonic()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("training runs in one process; start it without torchrun or accelerate launch")
    set_seed(config.training.seed)
    output = Path(config.output_dir)
    prepare_output(config, output, resume)
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
    check_plan(output / "steps" / "plan.sha256", plan.digest(groups), resume)
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
        accept_threshold=config.training.accept_threshold,
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


def prepare_output(config: RunConfig, output: Path, resume: bool) -> None:
    """Make the run's folder; a resumed run must be the same run, a new one starts without old checkpoints.

    Raises:
        ConfigError: nothing to resume, or a configuration that differs from the one that was interrupted.
    """
    text, record = dump_config(config), output / "config.yaml"
    checkpoints = sorted((output / "steps").glob("checkpoint-*"))
    if resume:
        if not checkpoints or not record.is_file():
            raise ConfigError(f"{output}: expected checkpoints to resume from, found none; run without --resume")
        before = record.read_text(encoding="utf-8")
        if text != before:
            changed = [line.strip() for line in text.splitlines() if line not in before.splitlines()]
            raise ConfigError(
                f"{output}: the interrupted run had other settings; differing now: "
                f"{'; '.join(changed) or 'the order of entries'}. Resume with the same, or start anew without --resume"
            )
        return
    if checkpoints:
        logger.warning("%s: removing %d checkpoints of an earlier run", output / "steps", len(checkpoints))
        for folder in checkpoints:
            shutil.rmtree(folder)
    output.mkdir(parents=True, exist_ok=True)
    record.write_text(text, encoding="utf-8")


def check_plan(path: Path, digest: str, resume: bool) -> None:
    """Bind a run to its data: a resumed run must go on with the same rows in the same batches.

    Raises:
        ConfigError: the data are not those of the interrupted run.
    """
    if resume and path.is_file() and path.read_text(encoding="ascii") != digest:
        raise ConfigError(f"{path.parent}: the training data changed since the run was interrupted; start it anew")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest, encoding="ascii")


def load(config: RunConfig) -> tuple[list[Preference], list[Preference]]:
    """Training and validation records."""
    data = config.data
    options: dict[str, Any] = {
        "columns": data.columns,
        "on_error": data.on_error,
        "single": config.training.loss in get_args(PointLoss),
    }
    training = load_preferences(data.train, limit=data.limit, **options)
    validation = load_preferences(data.validation, limit=data.validation_limit, **options)
    check_tasks(config, [*training.preferences, *validation.preferences])
    return training.preferences, validation.preferences


def check_tasks(config: RunConfig, preferences: Sequence[Preference]) -> None:
    """Refuse labels that are not one per output of the model, or that change their names between rows.

    Raises:
        ConfigError: naming the row, its tasks and what the model has.
    """
    outputs = len(config.model.aspects) or (config.model.n_tasks if config.model.scheme == "pairwise" else 1)
    expected = tuple(sorted(config.model.aspects)) or preferences[0].tasks
    for preference in preferences:
        if len(preference.scores[0]) != outputs or preference.tasks != expected:
            named = f" ({', '.join(preference.tasks)})" if preference.tasks else ""
            raise ConfigError(
                f"row '{preference.id}' has {len(preference.scores[0])} labels{named} per answer, the model {outputs} "
                f"outputs{f' ({chr(44).join(expected)})' if expected else ''}; set model.n_tasks or model.aspects"
            )


def start(config: RunConfig) -> tuple[PreTrainedModel, TextTokenizer]:
    """A new model on its pretrained backbone; its head is newly initialised, on purpose."""
    model = config.model
    name = offline_backbone() if model.backbone == "offline" else model.backbone
    logger.warning("head newly initialised on backbone '%s': scores mean nothing before training", model.backbone)
    make, ignored = MAKERS[model.scheme]
    try:
        return make(name, **model.model_dump(exclude={"backbone", "scheme", *ignored}))
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.backbone '{model.backbone}': expected a folder or a hub name ({reason:.200})"
        ) from error


MAKERS: Final[dict[Scheme, tuple[Callable[..., tuple[PreTrainedModel, TextTokenizer]], tuple[str, ...]]]] = {
    "pairwise": (pairwise.from_backbone, ("output", "aspects", "pooling")),
    "reward": (reward.from_backbone, ("layout", "exchange", "n_tasks", "head_dropout")),
}
"""How a scheme's model is made, and the settings of the other scheme."""


def arguments(config: RunConfig, output: Path, steps: int) -> TrainingArguments:
    """The library's arguments for this run; ``steps`` are its optimizer steps."""
    training = config.training
    interval = -(-steps // training.evaluations)
    made = TrainingArguments(
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
    made._n_gpu = min(1, made.n_gpu)  # DataParallel would tear groups apart
    return made


def bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: asked for, or ``auto`` on a processor that computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class CheckSaved(TrainerCallback):  # type: ignore[misc]
    """Reloads every saved checkpoint and compares its scores with the live model's."""

    def __init__(self, model: PreTrainedModel, tokenizer: TextTokenizer, probes: Sequence[Any]) -> None:
        self.model, self.tokenizer, self.probes = model, tokenizer, list(probes)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check the checkpoint just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        native.check_reload(self.model, self.tokenizer, folder, self.probes)


class EvaluateLast(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at the last step too, which need not be a multiple of the interval."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for both at the end."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


def _callbacks(
    config: RunConfig, model: PreTrainedModel, tokenizer: TextTokenizer, probes: Sequence[Any]
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [AccuracyBar(), EvaluateLast(), CheckSaved(model, tokenizer, probes)]
    if config.training.patience is not None:
        callbacks.append(EarlyStoppingCallback(config.training.patience))
    return callbacks
