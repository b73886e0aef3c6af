"""SIGINT (Ctrl-C) and SIGTERM as one kind of interruption: both clean up and print how to continue."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
"""Names of the signals in messages."""

REPEAT: Final = 2.0
"""Seconds in which further signals count as the same request; ``timeout`` and ``torchrun`` send several."""

Handler = Callable[[int, FrameType | None], Any]
_first: float | None = None
_number: int | None = None


class Stopped(KeyboardInterrupt):
    """A SIGINT or SIGTERM; ``number`` says which.

    A ``KeyboardInterrupt``, so that no ``except Exception`` handles it as a failure.
    """

    def __init__(self, number: int) -> None:
        super().__init__(NAMES.get(signal.Signals(number), signal.Signals(number).name))
        self.number = number


def ignore() -> None:
    """From here on SIGINT and SIGTERM do nothing: all is done, and Python's shutdown takes seconds beside torch."""
    for number in NAMES:
        signal.signal(number, signal.SIG_IGN)


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that interrupted."""
    return error.number if isinstance(error, Stopped) else int(signal.SIGINT)


def repeated() -> bool | None:
    """Whether a signal that just arrived repeats the first: None for the first, False after ``REPEAT`` seconds."""
    global _first  # noqa: PLW0603  signals belong to the process
    now = time.monotonic()
    if _first is None:
        _first = now
        return None
    return now - _first < REPEAT


def stop(number: int, frame: FrameType | None) -> None:
    """Signal handler: the first signal raises ``Stopped``, one after ``REPEAT`` seconds ends the process.

    It ends without Python's clean-up, which aborts while threads are computing.
    """
    global _number  # noqa: PLW0603  signals belong to the process
    again = repeated()
    if again is None:
        _number = number
        raise Stopped(number)
    if not again:
        os._exit(128 + number)


def quiet_destructors() -> None:
    """Print no traceback where a signal arrives within a destructor, which swallows it; ``received`` still tells it."""
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            show(unraisable)

    sys.unraisablehook = hook


def received() -> int | None:
    """The signal that ``stop`` has raised for; None before one, and after ``forget``."""
    return _number


def forget() -> None:
    """Treat the next signal as a first one, after interrupted work when the process continues."""
    global _first, _number  # noqa: PLW0603
    _first = _number = None


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
