"""What happens beside the steps of a run: the progress bar, the last evaluation, checks of saved files, memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SELECTED_BY = "selection"
"""The figure of the validation rows that chooses the checkpoint."""

SLICE = 256
"""Validation groups of each process between two looks at whether the run is to stop, and two steps of the bar."""

SHOWN = ("loss", "accuracy", "margin", "eval_accuracy", "eval_spearman", "eval_rmse")


class AccuracyBar(TrainerCallback):  # type: ignore[misc]
    """Steps with loss, accuracy and margin of the training comparisons, and the last validation accuracy, on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown: dict[str, str] = {}
        self._validated = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        hidden = not state.is_world_process_zero
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", file=sys.stderr, disable=hidden
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance."""
        self._bar.update(state.global_step - self._bar.n)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show how much of the validation rows is scored, so that the bar does not stand still meanwhile."""
        if self._bar is not None:
            self._validated += 1
            self._bar.set_postfix(self._shown | {"validating": f"{self._validated * SLICE} rows"})

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the training's figures again."""
        self._validated = 0
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Show the newest numbers."""
        self._shown |= {name: f"{logs[name]:.3f}" for name in SHOWN if isinstance(logs.get(name), float)}
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


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


class TrimMemory(TrainerCallback):  # type: ignore[misc]
    """Gives freed memory back to the system now and then.

    Batches of ever different shapes leave holes in glibc's heap, which would otherwise grow to twice what is used.
    """

    def __init__(self) -> None:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._trim: Callable[[int], int] | None = trim

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trim at every log."""
        if self._trim is not None:
            self._trim(0)
