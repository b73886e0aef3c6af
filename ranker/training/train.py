"""The training run, top to bottom: data, model, plan, fit, save, check."""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ranker import atomic
from ranker.checkpoints import adapters as adapter_folders
from ranker.checkpoints import native
from ranker.checkpoints.adapters import AdapterSettings
from ranker.config import RunConfig
from ranker.config.losses import CustomLossConfig
from ranker.config.models import ArmoRMConfig
from ranker.errors import ConfigError
from ranker.models.backbones import DECODERS
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.training import lora, losses
from ranker.training.batches import RunPlan, grouped, planned
from ranker.training.budget import TokensThatFit
from ranker.training.callbacks import SELECTED_BY, AccuracyBar, CheckSaved, EvaluateLast, EvaluatePending, TrimMemory
from ranker.training.defaults import Resolved, resolved
from ranker.training.groups import Groups
from ranker.training.interrupts import StopRequest, TrainingStopped
from ranker.training.launch import Launch, launched
from ranker.training.losses import Loss
from ranker.training.resume import PLAN, STEPS, TOKENS, begin_output, check_output, check_plan, newest_whole, only_run
from ranker.training.rows import load
from ranker.training.stages import gating, qat
from ranker.training.start import starting_model, without_padding
from ranker.training.trainer import RankerTrainer

logger = logging.getLogger(__name__)
PROBES: Final = 8
"""Training groups that every saved checkpoint must score like the live model."""
MERGED: Final = 1e-3
"""Largest difference in logits between an adapter beside the weights and merged into them, in fp32."""
GATHERED: Final = 0.05
"""Largest difference in logits where weights are gathered in 16 bits from shards."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves: its settings, the checkpoint folder, a scorer on the trained model, its data and its log."""

    config: RunConfig
    folder: Path
    scorer: TorchScorer
    train: list[Preference]
    validation: list[Preference]
    test: list[Preference]
    """The rows to report on: those of ``data.test``, or the validation rows where there are none."""
    history: list[dict[str, Any]]
    seconds: float
    steps: int
    main: bool = True
    """Whether this process goes on to evaluate and export; of several, one does."""


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    loss: Loss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    log: Callable[[str], object] = logger.info,
) -> Trained:
    """Train a ranker, saving and checking checkpoints on the way.

    Ctrl-C and SIGTERM save a checkpoint after the step that is running.

    Args:
        config: the run.
        resume: continue from the newest whole checkpoint in ``output_dir``.
        overwrite: delete an earlier run in ``output_dir`` first; without it an earlier run is an error.
        loss: a loss object instead of the one that ``training.loss`` names.
        callbacks: transformers' callbacks, called besides the built-in ones.
        log: called with a line of text before the first step.

    Raises:
        ConfigError: settings that do not fit the data, the backbone or the run that is resumed, or an earlier run in
            ``output_dir`` and neither ``resume`` nor ``overwrite``.
        JobError: another process trains in ``output_dir``.
        DataError: a row that cannot be used (``on_error: raise``).
        CheckpointError: a saved checkpoint that does not score like the live model, or none to resume from is whole.
        TrainingStopped: Ctrl-C or SIGTERM; the checkpoint of the last whole step is on disk.
    """
    launch = launched(config)
    with only_run(Path(config.output_dir)) if launch.main else nullcontext():
        return _train(config, launch, resume, overwrite, loss, callbacks, log)


def _train(
    config: RunConfig,
    launch: Launch,
    resume: bool,
    overwrite: bool,
    loss: Loss | None,
    callbacks: Sequence[TrainerCallback],
    log: Callable[[str], object],
) -> Trained:
    started = time.monotonic()
    set_seed(config.training.seed)
    output = Path(config.output_dir)
    if loss is not None:
        named = CustomLossConfig(type="custom", name=type(loss).__name__)
        config = config.model_copy(update={"training": config.training.model_copy(update={"loss": named})})
        try:
            config.training.check_reading(
                named.name, answers=isinstance(loss, losses.AnswerLoss), every_token=loss.every_token
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
    settings = resolved(config)
    config = settings.config
    if launch.main:
        check_output(config, output, resume=resume, overwrite=overwrite)
    training, validation, test = load(config)
    args = None
    if not isinstance(config.model, ArmoRMConfig):
        args = arguments(config, output, launch)  # sets up the processes' group
        if launch.sharded and config.qat != "none":
            raise ConfigError("qat needs whole weights in one process; train without it, then on from the result")
    begin = partial(begin_output, config, output, resume=resume, overwrite=overwrite)
    if args is None:
        begin()
        folder, scorer, history, steps = gating.fit(config, training, [*validation, *test])
    else:
        work = Work(
            settings, args, launch, training, validation, loss or losses.build(config.training.loss), callbacks, log
        )
        log(
            f"{settings.parameters / 1e6:.0f}M parameters ({config.model.name_or_path}); {len(training)} training and "
            f"{len(validation)} validation rows"
        )
        folder, scorer, history, steps = _fit(work, resume, begin)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # its threads must not outlive a process that is done
        if config.qat == "int8" and launch.main:
            groups = grouped(
                config.training,
                training,
                scorer.model,
                scorer.pipeline.tokenizer,
                work.loss,
                on_error=config.data.on_error,
            )
            qat.train_quantized(
                scorer.model, groups, config.training, config.qat_steps, learning_rate=settings.learning_rate
            )
            native.replace(scorer.model, scorer.pipeline.tokenizer, folder)
            native.check_reload(scorer, folder, [p.group for p in training[:PROBES]])
    return Trained(
        config=config,
        folder=folder,
        scorer=scorer,
        train=training,
        validation=validation,
        test=test,
        history=history,
        seconds=time.monotonic() - started,
        steps=steps,
        main=launch.main,
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What a run trains with."""

    settings: Resolved
    args: TrainingArguments
    launch: Launch
    training: list[Preference]
    validation: list[Preference]
    loss: Loss
    callbacks: Sequence[TrainerCallback]
    log: Callable[[str], object]

    @property
    def config(self) -> RunConfig:
        """The run without open settings."""
        return self.settings.config

    def with_tokens(self, tokens: int) -> Work:
        """The same run with forward passes of at most so many tokens."""
        training = self.config.training.model_copy(update={"max_tokens_per_forward": tokens})
        config = self.config.model_copy(update={"training": training})
        return replace(self, settings=replace(self.settings, config=config))


def _fit(work: Work, resume: bool, begin: Callable[[], None]) -> tuple[Path, TorchScorer, list[dict[str, Any]], int]:
    """Train on the batches of a plan; the checkpoint folder, a scorer, the log and the number of steps."""
    config, args, launch = work.config, work.args, work.launch
    training = work.training
    output = Path(config.output_dir)
    model, tokenizer = starting_model(config)
    if config.training.padding_free:
        without_padding(config, model)
    check_loss(work.loss, model)
    groups = grouped(config.training, training, model, tokenizer, work.loss, on_error=config.data.on_error)
    adapter = None if config.lora is None else AdapterSettings(model=config.model, output=config.output)
    whole = model if config.lora is None or adapter is None else lora.attach(model, config.lora, adapter)
    if config.training.max_tokens_per_forward == "auto":
        work = work.with_tokens(_tokens_that_fit(work, groups, whole, resume))
        config = work.config
    plan = planned(config.training, groups, world=launch.world, rank=launch.rank)
    args.learning_rate = work.settings.rate(groups.times)
    args.gradient_accumulation_steps = work.settings.accumulation(groups.times * plan.used, launch.world)
    _begin(work, groups, plan, resume, begin)
    steps = -(-len(plan) // args.gradient_accumulation_steps)
    # Rounded down: with one step of warm-up, a run of one step would train at a rate of 0.
    args.warmup_steps = math.floor(_steps_of(config.training.warmup_steps, steps))
    args.eval_steps = args.save_steps = math.ceil(_steps_of(config.training.eval_steps, steps))
    trainer = RankerTrainer(
        whole,
        args,
        groups=groups,
        plan=plan,
        validation=work.validation,
        tokenizer=tokenizer,
        config=config.training,
        loss=work.loss,
        adapter=adapter,
        stop=StopRequest(launch.world),
        callbacks=[*_callbacks(config), *work.callbacks],
    )
    check_sharding(launch, trainer)
    probes = [p.group for p in training[:PROBES]]
    limit = GATHERED if launch.sharded else native.SAME if adapter is None else MERGED

    def check(folder: Path) -> None:
        live = trainer.score(probes)
        if launch.main and not _quantized(config):
            saved, _ = native.load(folder)
            saved.to(trainer.args.device)
            native.compare(live, TorchScorer(saved, tokenizer).score(probes), folder, limit=limit)
        elif launch.main:
            adapter_folders.check_head(folder)

    trainer.add_callback(CheckSaved(check))
    source = newest_whole(output) if resume else None
    if source is not None:
        work.log(f"resuming from {source}")
        trainer.add_callback(EvaluatePending(trainer, source))
    with trainer.stop.watched():
        trainer.train(resume_from_checkpoint=None if source is None else str(source))
        stopped = trainer.stop.agreed(trainer.args.device)
    if groups.cut:
        logger.warning(
            "%d of %d groups read had a prompt or an answer cut to model.max_length", groups.cut, groups.read
        )
    _say_what_is_kept(trainer.state, work.log)
    final = output / "checkpoint"
    scorer = _saved(config, trainer, launch, probes, final)
    if adapter is None and not launch.sharded:
        check(final)
    if stopped is not None:  # after the last step: the model is trained and saved, what follows is not begun
        raise TrainingStopped(stopped, trainer.state.global_step, trainer.state.max_steps, final)
    return final, scorer, trainer.state.log_history, trainer.state.global_step


def _tokens_that_fit(work: Work, groups: Groups, model: PreTrainedModel, resume: bool) -> int:
    """``training.max_tokens_per_forward: auto`` as a number; a resumed run keeps its first number."""
    training, launch, file = work.config.training, work.launch, Path(work.config.output_dir) / STEPS / TOKENS
    if resume and file.is_file():
        return int(file.read_text(encoding="ascii"))
    if launch.sharded:
        logger.warning(
            "training.max_tokens_per_forward auto: memory of sharded weights is not estimated; passes have %d tokens",
            training.tokens_per_forward,
        )
        return training.tokens_per_forward
    if not _quantized(work.config):
        model.to(work.args.device)
    if training.activation_checkpointing:  # as the trainer does when it begins
        model.gradient_checkpointing_enable()
    dtype = torch.bfloat16 if work.args.bf16 else None
    tokens = TokensThatFit(training, groups, model, work.loss, autocast=dtype, processes=launch.world).find()
    if launch.world > 1:
        least = torch.tensor(tokens, device=work.args.device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        tokens = int(least)
    return tokens


def _begin(work: Work, groups: Groups, plan: RunPlan, resume: bool, begin: Callable[[], None]) -> None:
    """Bind the output folder to the plan and say what it is."""
    accumulation = work.args.gradient_accumulation_steps
    if work.launch.main:
        begin()  # what an earlier run left is removed when nothing of this one can be refused any more
        digest = f"{plan.digest(groups)} {work.launch.world * accumulation}"
        check_plan(Path(work.config.output_dir) / STEPS / PLAN, digest, resume)
        tokens = work.config.training.tokens_per_forward
        atomic.write_text(Path(work.config.output_dir) / STEPS / TOKENS, str(tokens))
    for line in [*groups.summary(), plan.summary(groups, accumulation, work.args.learning_rate)]:
        work.log(line)


def _say_what_is_kept(state: TrainerState, log: Callable[[str], object]) -> None:
    if state.best_global_step:
        log(f"kept step {state.best_global_step} of {state.max_steps}: the best on the validation rows")


def _saved(
    config: RunConfig, trainer: RankerTrainer, launch: Launch, probes: Sequence[Any], final: Path
) -> TorchScorer:
    """Write the final checkpoint; a scorer of what is in it."""
    if config.lora is not None:
        return _merged(config, trainer, launch, probes, final)
    if launch.sharded:
        return _sharded(trainer, launch, final)
    draft = atomic.draft_of(final)
    trainer.save_model(str(draft))
    if launch.main:
        atomic.replace_folder(draft, final)
    trainer.model.eval()
    return trainer.scorer


def _sharded(trainer: RankerTrainer, launch: Launch, final: Path) -> TorchScorer:
    """The best checkpoint, already whole and checked on disk, as the final one."""
    if not launch.main:
        return trainer.scorer
    last = f"{trainer.args.output_dir}/checkpoint-{trainer.state.global_step}"
    scorer = TorchScorer(*native.load(Path(trainer.state.best_model_checkpoint or last)))
    native.replace(scorer.model, trainer.tokenizer, final)
    scorer.model.to(trainer.args.device)
    return scorer


def _merged(
    config: RunConfig, trainer: RankerTrainer, launch: Launch, probes: Sequence[Any], final: Path
) -> TorchScorer:
    """Save the adapter, merge it into full-precision weights, and save and check those as the checkpoint.

    Quantised weights are merged from the unquantised backbone: the result differs from what was trained by the
    quantisation's error, and is what is evaluated.
    """
    if not launch.main:
        return trainer.scorer
    folder = final.with_name("adapter")
    draft = atomic.draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    settings = AdapterSettings(model=config.model, output=config.output)
    adapter_folders.save(trainer.model, trainer.tokenizer, settings, draft)
    atomic.replace_folder(draft, folder)
    merged, tokenizer, _ = adapter_folders.load(folder)
    scorer = TorchScorer(merged, tokenizer)
    native.replace(scorer.model, trainer.tokenizer, final)
    native.check_reload(scorer, final, probes)
    scorer.model.to(trainer.args.device)
    if not _quantized(config):
        native.compare(trainer.scorer.score(probes), scorer.score(probes), folder, limit=MERGED)
    return scorer


def check_sharding(launch: Launch, trainer: RankerTrainer) -> None:
    """Refuse a run whose weights are not where its launcher said.

    Raises:
        ConfigError: sharding was asked for and does not happen, or happens unasked.
    """
    if launch.sharded and not trainer.sharded:
        raise ConfigError(
            "FSDP or ZeRO-3 was asked for, but accelerate does not shard here (it never does on CPU); start it as DDP"
        )
    if trainer.sharded and not launch.sharded:
        raise ConfigError("accelerate shards the weights, but its settings do not say so; start with accelerate launch")


def _quantized(config: RunConfig) -> bool:
    """Whether the frozen weights are quantised, so that a checkpoint scores a little differently from the run."""
    return config.lora is not None and config.lora.quantization != "none"


def check_loss(loss: Loss, model: PreTrainedModel) -> None:
    """Refuse a loss of every token on a backbone whose tokens see what follows them.

    Raises:
        ConfigError: token-level losses on an encoder.
    """
    if loss.every_token and model.config.model_type not in DECODERS:
        raise ConfigError(
            f"{type(loss).__name__} is a loss of every token and needs a decoder ({', '.join(DECODERS)}), got "
            f"'{model.config.model_type}': an encoder's tokens see the whole answer"
        )


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
        activation_checkpointing=training.activation_checkpointing,
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
        logging_steps=training.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it waits for the device at every step
        report_to=_installed(training.report_to),
        remove_unused_columns=False,
        disable_tqdm=True,  # AccuracyBar is the bar
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


def _steps_of(value: float, steps: int) -> float:
    """A number of steps; below 1 it is a share of the run, as in transformers."""
    return value * steps if value < 1 else value


def _installed(targets: Sequence[str]) -> list[str]:
    """Where the run is logged to; TensorBoard, the default, is left out where it is not installed."""
    return [name for name in targets if name != "tensorboard" or importlib.util.find_spec("tensorboard")]


def _callbacks(config: RunConfig) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [AccuracyBar(), EvaluateLast(), TrimMemory()]
    if config.training.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.training.early_stopping_patience))
    return callbacks
