"""Beside the steps of a run: what is shown, when it is saved, the last evaluation, checks of saved files, memory."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ranker.progress import Stage

SELECTED_BY = "selection"
"""The figure of the validation rows that chooses the checkpoint."""

SLICE = 256
"""Validation groups of each process between two looks at whether the run is to stop."""

BETWEEN_TRIMS = 30.0
"""Seconds from one return of memory to the system to the next."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``: free bytes at the heap's end that are returned, and the most arrays outside the heap."""

SHOWN = ("loss", "accuracy", "margin", "eval_accuracy", "eval_spearman", "eval_rmse")


class ShowFigures(TrainerCallback):  # type: ignore[misc]
    """Moves a stage with the steps, and shows the newest figures of training and validation beside it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._figures: dict[str, str] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show what an earlier run has done, with its figures."""
        for entry in state.log_history:
            self._note(entry)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance."""
        self._stage.move(state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Show the newest figures."""
        self._note(logs)

    def _note(self, logs: dict[str, Any]) -> None:
        self._figures |= {name: f"{logs[name]:.3f}" for name in SHOWN if isinstance(logs.get(name), float)}
        self._stage.note(**self._figures)


class SaveOften(TrainerCallback):  # type: ignore[misc]
    """Saves between evaluations too: every so many steps, and every so many minutes.

    Args:
        steps: between two checkpoints; None for none.
        minutes: between two checkpoints; None for none.
        processes: how many train together; they save after the same step.
    """

    def __init__(self, steps: int | None, minutes: float | None, processes: int = 1) -> None:
        self._steps, self._seconds, self._processes = steps, None if minutes is None else 60 * minutes, processes
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint where one is due."""
        late = self._seconds is not None and self._late(args)
        if late or (self._steps is not None and state.global_step % self._steps == 0):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the minutes from here."""
        self._saved = time.monotonic()

    def _late(self, args: TrainingArguments) -> bool:
        late = time.monotonic() - self._saved >= (self._seconds or 0)
        if self._processes == 1:
            return late
        shared = torch.tensor(int(late), device=args.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return bool(shared)


class EvaluateLast(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at the last step too, which need not be a multiple of the interval."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for both at the end."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


class EvaluatePending(TrainerCallback):  # type: ignore[misc]
    """Evaluates a checkpoint that a stop saved before its evaluation, when the run is resumed from it.

    Args:
        trainer: evaluates, and keeps which checkpoint is the best.
        folder: what the run is resumed from.
    """

    def __init__(self, trainer: Any, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate where the step was due and has no result."""
        due = state.global_step % args.eval_steps == 0 or state.global_step == state.max_steps
        known = any(entry["step"] == state.global_step for entry in state.log_history if f"eval_{SELECTED_BY}" in entry)
        if due and not known and self.trainer._determine_best_metric(self.trainer.evaluate(), trial=None):
            state.best_model_checkpoint = str(self.folder)


class CheckSaved(TrainerCallback):  # type: ignore[misc]
    """Hands every checkpoint that was saved to a function that raises where it is not usable."""

    def __init__(self, check: Callable[[Path], Any]) -> None:
        self.check = check

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check the checkpoint just written, in every process: sharded weights are scored together."""
        self.check(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class HostMemory(TrainerCallback):  # type: ignore[misc]
    """Keeps what a step frees for the next step, and gives what is unused back to the system now and then.

    By itself glibc returns large arrays at once and asks for them again, which takes the system a tenth of a step.
    Kept, batches of ever different shapes leave holes in the heap, which would grow to twice what is used.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim: Callable[[int], int] | None = getattr(library, "malloc_trim", None)
        self._set: Callable[[int, int], int] | None = getattr(library, "mallopt", None)
        self._trimmed = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take large arrays from the heap too, and keep its free end."""
        if self._set is not None:
            self._set(M_MMAP_MAX, 0)
            self._set(M_TRIM_THRESHOLD, 2**31 - 1)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trim at a log, at most every ``BETWEEN_TRIMS`` seconds."""
        if self._trim is not None and time.monotonic() - self._trimmed >= BETWEEN_TRIMS:
            self._trim(0)
            self._trimmed = time.monotonic()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Give back what training needed."""
        if self._trim is not None:
            self._trim(0)
