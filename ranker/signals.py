"""SIGINT (Ctrl-C) and SIGTERM as one kind of interruption, so that both clean up and say how to continue."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
"""What users call them."""

REPEAT: Final = 2.0
"""Seconds in which further signals are the same request: a terminal, ``timeout`` and ``torchrun`` send several."""

Handler = Callable[[int, FrameType | None], Any]
_first: float | None = None


class Stopped(KeyboardInterrupt):
    """A SIGINT or SIGTERM; ``number`` says which.

    A ``KeyboardInterrupt``, so that no ``except Exception`` takes it for a failure of the work.
    """

    def __init__(self, number: int) -> None:
        super().__init__(NAMES.get(signal.Signals(number), signal.Signals(number).name))
        self.number = number


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that interrupted."""
    return error.number if isinstance(error, Stopped) else int(signal.SIGINT)


def repeated() -> bool | None:
    """Of a signal that has just come: None for the first, True within ``REPEAT`` seconds of it, False later."""
    global _first  # noqa: PLW0603  signals belong to the process
    now = time.monotonic()
    if _first is None:
        _first = now
        return None
    return now - _first < REPEAT


def stop(number: int, frame: FrameType | None) -> None:
    """Signal handler: the first signal raises ``Stopped``, one that comes ``REPEAT`` seconds later ends the process.

    It ends without Python's own clean-up, which aborts while threads are computing.
    """
    again = repeated()
    if again is None:
        raise Stopped(number)
    if not again:
        os._exit(128 + number)


def forget() -> None:
    """Take the next signal for a first one: an interrupted piece of work is over, and the process goes on."""
    global _first  # noqa: PLW0603
    _first = None


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Call ``handler`` for SIGINT and SIGTERM within the block; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
