"""The training run, top to bottom: data, model, plan, fit, save, check."""

from __future__ import annotations

import logging
import math
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
from transformers.trainer import TRAINING_ARGS_NAME

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
from ranker.progress import stage
from ranker.records import Preference
from ranker.training import lora, losses
from ranker.training.arguments import arguments, steps_of
from ranker.training.batches import RunPlan, grouped, planned
from ranker.training.budget import TokensThatFit
from ranker.training.callbacks import (
    CheckSaved,
    EvaluateLast,
    EvaluatePending,
    HostMemory,
    SaveOften,
    ShowFigures,
)
from ranker.training.defaults import Resolved, resolved
from ranker.training.groups import Groups
from ranker.training.interrupts import StopRequest, TrainingStopped
from ranker.training.launch import Launch, launched
from ranker.training.losses import Loss
from ranker.training.resume import (
    FINAL,
    OTHER_ROWS,
    PLAN,
    STEPS,
    TOKENS,
    End,
    begin_output,
    check_output,
    check_plan,
    newest_whole,
    only_run,
    read_end,
    remove_checkpoints,
    rows_digest,
    step_of,
    write_end,
)
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


LOGS: Final = 20
"""Points of the learning curve of a short run, at least."""
MOST_LOGGING_STEPS: Final = 20
"""Steps between two logs of a long run."""


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
    tokens_per_second: float = 0.0
    """Padded tokens that all processes trained on per second, with validation and checkpoints; 0 where not counted."""
    learning_rate: float | None = None
    """Of the backbone, after the warm-up."""
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
        config = _with_custom_loss(config, loss)
    settings = resolved(config)
    config = settings.config
    if launch.main:
        check_output(config, output, resume=resume, overwrite=overwrite)
    rows = load(config)
    ended = read_end(output) if resume else None
    if ended is not None:
        return _trained(config, rows, _ended(config, rows, ended, launch, log), ended.seconds, launch)
    begin = partial(begin_output, config, output, resume=resume, overwrite=overwrite)
    if isinstance(config.model, ArmoRMConfig):
        begin()
        fitted = Fitted(*gating.fit(config, rows[0], [*rows[1], *rows[2]]))
        return _trained(config, rows, fitted, time.monotonic() - started, launch)
    args = arguments(config, output, launch)  # sets up the processes' group
    if launch.sharded and config.qat != "none":
        raise ConfigError("qat needs whole weights in one process; train without it, then on from the result")
    work = Work(settings, args, launch, *rows[:2], loss or losses.build(config.training.loss), callbacks, log)
    fitted = _fit(work, resume, begin)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads must not outlive a process that is done
    if config.qat == "int8" and launch.main:
        _quantize(work, fitted)
    seconds = time.monotonic() - started
    if launch.main:
        write_end(
            output,
            End(
                rows_digest(*rows[:2]),
                fitted.steps,
                seconds,
                fitted.tokens_per_second,
                fitted.learning_rate,
                fitted.history,
            ),
        )
    return _trained(config, rows, fitted, seconds, launch)


def _ended(config: RunConfig, rows: Rows, ended: End, launch: Launch, log: Callable[[str], object]) -> Fitted:
    """What a training that is finished has left.

    Raises:
        ConfigError: it had other training or validation rows.
    """
    output = Path(config.output_dir)
    if ended.rows != rows_digest(*rows[:2]):
        raise ConfigError(OTHER_ROWS.format(folder=output / STEPS))
    if launch.main:
        begin_output(config, output, resume=True, overwrite=False)
        remove_checkpoints(output)  # those that a kill at the end has left
    log(f"the training was finished after step {ended.steps}; the model in {output / FINAL} is taken")
    scorer = TorchScorer(*native.load(output / FINAL))
    scorer.model.to("cuda" if launch.main and torch.cuda.is_available() else "cpu")
    return Fitted(output / FINAL, scorer, ended.history, ended.steps, ended.tokens_per_second, ended.learning_rate)


Rows = tuple[list[Preference], list[Preference], list[Preference]]
"""Training, validation and test rows."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the training itself leaves: checkpoint folder, scorer, log, steps, and tokens per second where counted."""

    folder: Path
    scorer: TorchScorer
    history: list[dict[str, Any]]
    steps: int
    tokens_per_second: float = 0.0
    learning_rate: float | None = None


def _trained(
    config: RunConfig,
    rows: Rows,
    fitted: Fitted,
    seconds: float,
    launch: Launch,
) -> Trained:
    training, validation, test = rows
    return Trained(
        config=config,
        folder=fitted.folder,
        scorer=fitted.scorer,
        train=training,
        validation=validation,
        test=test,
        history=fitted.history,
        seconds=seconds,
        steps=fitted.steps,
        tokens_per_second=fitted.tokens_per_second,
        learning_rate=fitted.learning_rate,
        main=launch.main,
    )


def _with_custom_loss(config: RunConfig, loss: Loss) -> RunConfig:
    """The run with a loss object in the place of the named one.

    Raises:
        ConfigError: a setting of what is read together does not fit it.
    """
    named = CustomLossConfig(type="custom", name=type(loss).__name__)
    config = config.model_copy(update={"training": config.training.model_copy(update={"loss": named})})
    try:
        config.training.check_reading(
            named.name, answers=isinstance(loss, losses.AnswerLoss), every_token=loss.every_token
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config


def _quantize(work: Work, fitted: Fitted) -> None:
    """Quantization-aware training of the model that was trained, in its folder."""
    config, scorer = work.config, fitted.scorer
    groups = grouped(
        config.training,
        work.training,
        scorer.model,
        scorer.pipeline.tokenizer,
        work.loss,
        on_error=config.data.on_error,
    )
    rate = work.settings.learning_rate
    qat.train_quantized(scorer.model, groups, config.training, config.qat_steps, learning_rate=rate)
    native.replace(scorer.model, scorer.pipeline.tokenizer, fitted.folder)
    native.check_reload(scorer, fitted.folder, [p.group for p in work.training[:PROBES]])


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

    def with_training(self, **settings: Any) -> Work:
        """The same run with other settings of ``training``."""
        training = self.config.training.model_copy(update=settings)
        config = self.config.model_copy(update={"training": training})
        return replace(self, settings=replace(self.settings, config=config))


def _fit(work: Work, resume: bool, begin: Callable[[], None]) -> Fitted:
    """Train on the batches of a plan."""
    config, args, launch = work.config, work.args, work.launch
    training = work.training
    output = Path(config.output_dir)
    model, tokenizer = starting_model(config)
    free = without_padding(config, model, args.device.type, bf16=args.bf16)
    work = work.with_training(padding_free=free)
    config = work.config
    check_loss(work.loss, model)
    groups = grouped(config.training, training, model, tokenizer, work.loss, on_error=config.data.on_error)
    adapter = None if config.lora is None else AdapterSettings(model=config.model, output=config.output)
    whole = model if config.lora is None or adapter is None else lora.attach(model, config.lora, adapter)
    if config.training.max_tokens_per_forward == "auto":
        work = work.with_training(max_tokens_per_forward=_tokens_that_fit(work, groups, whole, resume))
        config = work.config
    plan = planned(config.training, groups, world=launch.world, rank=launch.rank)
    args.learning_rate = work.settings.rate(groups.times)
    args.gradient_accumulation_steps = work.settings.accumulation(groups.times * plan.used, launch.world)
    _begin(work, groups, plan, resume, begin)
    steps = -(-len(plan) // args.gradient_accumulation_steps)
    # Rounded down: with one step of warm-up, a run of one step would train at a rate of 0.
    args.warmup_steps = math.floor(steps_of(config.training.warmup_steps, steps))
    args.eval_steps = args.save_steps = math.ceil(steps_of(config.training.eval_steps, steps))
    args.logging_steps = config.training.logging_steps or max(1, min(MOST_LOGGING_STEPS, steps // LOGS))
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
        callbacks=[*_callbacks(config, launch, steps), *work.callbacks],
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
    first_step = 0 if source is None else step_of(source)
    with trainer.stop.watched(), stage("train", steps, done=first_step, unit="steps") as shown:
        trainer.add_callback(ShowFigures(shown))
        started = time.monotonic()
        trainer.train(resume_from_checkpoint=None if source is None else str(source))
        stopped = trainer.stop.agreed(trainer.args.device)
        seconds = time.monotonic() - started
    if groups.cut:
        logger.warning(
            "%d of %d groups read had a prompt or an answer cut to model.max_length", groups.cut, groups.read
        )
    _say_what_is_kept(trainer.state, work.log)
    final = output / FINAL
    scorer = _saved(config, trainer, launch, probes, final)
    if adapter is None and not launch.sharded:
        check(final)
    if stopped is not None:  # after the last step: the model is trained and saved, what follows is not begun
        raise TrainingStopped(stopped, trainer.state.global_step, trainer.state.max_steps, final)
    tokens = plan.tokens(groups) * launch.world * (trainer.state.global_step - first_step) / steps
    return Fitted(
        final, scorer, trainer.state.log_history, trainer.state.global_step, tokens / seconds, args.learning_rate
    )


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
    settings, args = work.settings, work.args
    work.log(
        f"{work.config.model.name_or_path}: {settings.parameters / 1e6:.0f}M parameters, "
        f"{'bf16' if args.bf16 else 'fp32'} on {args.device}; {len(work.training)} training and "
        f"{len(work.validation)} validation rows; into {work.config.output_dir}"
    )
    for line in [*groups.summary(), plan.summary(groups, accumulation, args.learning_rate)]:
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
    with atomic.draft_folder(final) if launch.main else nullcontext(atomic.draft_of(final)) as draft:
        trainer.save_model(str(draft))
        Path(draft, TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, with paths of this machine
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
    settings = AdapterSettings(model=config.model, output=config.output)
    with atomic.draft_folder(folder) as draft:
        adapter_folders.save(trainer.model, trainer.tokenizer, settings, draft)
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


def _callbacks(config: RunConfig, launch: Launch, steps: int) -> list[TrainerCallback]:
    often, minutes = config.training.save_steps, config.training.save_minutes
    callbacks: list[TrainerCallback] = [EvaluateLast(), HostMemory()]
    if often is not None or minutes is not None:
        every = None if often is None else math.ceil(steps_of(often, steps))
        callbacks.append(SaveOften(every, minutes, launch.world))
    if config.training.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.training.early_stopping_patience))
    return callbacks
