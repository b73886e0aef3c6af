"""A run that is told to stop: it ends its step, saves a checkpoint, and says how far it came.

transformers' ``enable_jit_checkpoint`` is not used: it knows SIGTERM but not Ctrl-C, waits three seconds, and writes
into a checkpoint's final place.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import torch

from ranker.signals import NAMES, Stopped, forget, handled, repeated


class AbandonedError(Stopped):
    """The signal came within ``StopRequest.abandonable``."""


class TrainingStopped(Stopped):
    """A run that Ctrl-C or SIGTERM stopped after a whole step; its checkpoint is in ``folder``.

    It is a ``KeyboardInterrupt``, so that no ``except Exception`` takes it for a failure. The same call of
    ``ranker.train`` with ``resume=True`` continues the run.
    """

    def __init__(self, number: int, step: int, steps: int, folder: Path) -> None:
        super().__init__(number)
        self.step = step
        self.steps = steps
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"stopped after step {self.step} of {self.steps}, saved in {self.folder}; "
            "continue with the same call and resume=True (without overwrite)"
        )


class StopRequest:
    """Whether Ctrl-C or SIGTERM asked for an end.

    The first signal sets ``number``: the trainer saves after the step that is running. A second one, at least
    ``signals.REPEAT`` seconds later, stops at once.

    Args:
        processes: how many train together; all of them must stop after the same step.
    """

    def __init__(self, processes: int = 1) -> None:
        self.number: int | None = None
        self._processes = processes
        self._abandoning = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take both signals within the block."""
        forget()
        with handled(self._note):
            yield

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """A block that a signal may end in the middle: it computes nothing that must be kept.

        Raises:
            AbandonedError: the signal came within the block, or before it.
        """
        if self._processes > 1:  # the others would wait for this one
            yield
            return
        if self.number is not None:
            raise AbandonedError(self.number)
        self._abandoning = True
        try:
            yield
        finally:
            self._abandoning = False

    def agreed(self, device: torch.device) -> int | None:
        """The signal that one of the processes was sent; called by all of them after every step."""
        if self._processes == 1:
            return self.number
        shared = torch.tensor(self.number or 0, device=device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        number = int(shared) or None
        if number is not None:  # a signal that came meanwhile is not overwritten; the next step agrees on it
            self.number = number
        return number

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = repeated()
        if again:
            return
        if again is False:
            raise Stopped(number)
        self.number = number
        name = NAMES.get(signal.Signals(number), "a signal")
        message = f"\nranker: {name}: saving a checkpoint after this step; once more stops without saving\n"
        with suppress(OSError):
            os.write(2, message.encode())  # sys.stderr may be in the middle of a write
        if self._abandoning:
            raise AbandonedError(number)
