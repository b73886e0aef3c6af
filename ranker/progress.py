"""Progress of long work on standard error: a bar on a terminal, a line every 30 seconds elsewhere.

Code that takes long opens a ``stage`` and says how far it is; ``shown`` decides whether anybody sees it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ranker.errors import ConfigError
from ranker.signals import Stopped, received

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY_S: Final = 30.0
"""Seconds between two lines where there is no terminal."""

FIRST_S: Final = 2.0
"""Seconds before the first line; a bar that was shown for less does not stay."""

EVERY_S_OF: Final = "RANKER_PROGRESS_SECONDS"
"""The environment variable that sets other seconds."""

STEPS: Final = 1000
"""Items between two movements of a stage that counts them."""


T = TypeVar("T")
logger = logging.getLogger(__name__)


class Stage:
    """A piece of long work, ``done`` of ``total`` units of which are done; nobody sees this one.

    Args:
        title: what is done.
        total: units of all of it; None where that is not known before the end.
        done: units that an earlier run has done.
        unit: what is counted, in the plural.
    """

    def __init__(self, title: str, total: int | None, *, done: int = 0, unit: str = "rows") -> None:
        self.title, self.total, self.unit = title, total, unit
        self._first = self._done = float(done)
        self._end: float | None = None
        self._started = time.monotonic()

    @property
    def done(self) -> int:
        """Whole units that are done."""
        return int(self._done)

    def advance(self, units: float = 1) -> None:
        """So many more units are done."""
        self._done += units
        self._show()

    def move(self, done: float) -> None:
        """So many units are done in all."""
        self._done = done
        self._show()

    @contextmanager
    def span(self, units: float) -> Iterator[None]:
        """Within the block so many units are done; what is computed in it (``computed``) moves the stage on the way."""
        start, before = self._done, self._end
        self._end = start + units
        try:
            yield
        finally:
            self._end = before
        self.move(start + units)

    def computed(self, units: float) -> None:
        """So many units of the current ``span`` are computed; without one nothing happens."""
        if self._end is not None:
            self.move(min(self._done + units, self._end))

    def note(self, **figures: str) -> None:
        """Show these figures beside the stage from now on."""

    def say(self, line: str) -> None:
        """Print a line where there is no terminal."""

    def close(self, *, whole: bool) -> None:
        """End the stage; ``whole`` says that it was not interrupted."""

    def _show(self) -> None:
        """Show how far it is."""


class _Bar(Stage):
    """A stage as a bar of tqdm."""

    def __init__(self, title: str, total: int | None, *, done: int = 0, unit: str = "rows") -> None:
        from tqdm import tqdm

        super().__init__(title, total, done=done, unit=unit)
        self._bar: tqdm[Any] = tqdm(
            desc=title,
            total=total,
            initial=done,
            unit=f" {unit}",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def note(self, **figures: str) -> None:
        self._bar.set_postfix(figures)

    def close(self, *, whole: bool) -> None:
        self._bar.leave = time.monotonic() - self._started > FIRST_S
        self._bar.close()

    def _show(self) -> None:
        self._bar.update(self.done - self._bar.n)


class _Lines(Stage):
    """A stage as lines: one after ``FIRST_S`` seconds, one every ``EVERY_S``, and the last; short ones have none."""

    def __init__(self, title: str, total: int | None, *, done: int = 0, unit: str = "rows") -> None:
        super().__init__(title, total, done=done, unit=unit)
        self._every = _seconds_between_lines()
        self._next = self._started + min(FIRST_S, self._every)
        self._figures: dict[str, str] = {}
        self._shown = -1

    def note(self, **figures: str) -> None:
        self._figures = figures

    def say(self, line: str) -> None:
        _write(line)

    def close(self, *, whole: bool) -> None:
        if whole and self._shown != self.done and (self._shown >= 0 or time.monotonic() >= self._next):
            self._line()

    def _show(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._line()

    def _line(self) -> None:
        self._shown = self.done
        of = "" if self.total is None else f" of {self.total}"
        figures = "".join(f", {name} {value}" for name, value in self._figures.items())
        self.say(f"{self.title}: {self.done}{of} {self.unit}{figures}{self._pace()}")

    def _pace(self) -> str:
        seconds, moved = time.monotonic() - self._started, self._done - self._first
        if not moved or seconds < 1:
            return ""
        pace = f", {moved / seconds:.3g} {self.unit}/s"
        if self.total is None or self._done >= self.total:
            return f"{pace}, {duration(seconds)}"
        return f"{pace}, {duration((self.total - self._done) / moved * seconds)} left"


_shown: ContextVar[bool] = ContextVar("shown", default=False)
_stage: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def shown(show: bool = True) -> Iterator[None]:
    """Show the stages of the block, or none of them."""
    token = _shown.set(show)
    try:
        yield
    finally:
        _shown.reset(token)


@contextmanager
def stage(title: str, total: int | None, *, done: int = 0, unit: str = "rows") -> Iterator[Stage]:
    """A stage of the arguments of ``Stage`` for the time of the block.

    Raises:
        Stopped: Ctrl-C or SIGTERM came before, and the code that it interrupted went on.
    """
    number = received()
    if number is not None:  # code that cannot be interrupted, such as a destructor, has swallowed it
        raise Stopped(number)
    kind = Stage if not _shown.get() else _Bar if _has_room() else _Lines
    current = kind(title, total, done=done, unit=unit)
    token = _stage.set(current)
    whole = False
    try:
        yield current
        whole = True
    finally:
        _stage.reset(token)
        current.close(whole=whole)


def say(line: str) -> None:
    """Print a line where progress is shown, with or without a terminal; log it elsewhere."""
    if _shown.get():
        _write(line)
    else:
        logger.info(line)


def _write(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # whoever reads it has gone; the work goes on
        sys.stderr.write(f"ranker: {line}\n")
        sys.stderr.flush()


def _seconds_between_lines() -> float:
    text = os.environ.get(EVERY_S_OF) or str(EVERY_S)
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{EVERY_S_OF}: expected seconds, for example 30, got '{text:.40}'") from None


def _has_room() -> bool:
    """Whether standard error is a terminal that can show a bar; that of a container may have no size."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):  # a notebook's, or none at all
        return False


@contextmanager
def scoring(title: str, rows: int) -> Iterator[None]:
    """A stage of rows that are scored in one call, within the block."""
    with stage(title, rows) as whole, whole.span(rows):
        yield


def current() -> Stage:
    """The innermost stage; one that nobody sees where none is open."""
    return _stage.get() or Stage("", None)


def computed(units: float) -> None:
    """So many units of the current stage's span are computed; called by what computes them."""
    inner = _stage.get()
    if inner is not None:
        inner.computed(units)


def counted(items: Iterable[T]) -> Iterator[T]:
    """The items; the current stage moves as they are taken."""
    inner = current()
    number = 0
    for number, item in enumerate(items, 1):
        yield item
        if number % STEPS == 0:
            inner.advance(STEPS)
    inner.advance(number % STEPS)


def stepped(items: Sequence[T], title: str, unit: str = "steps") -> Iterator[T]:
    """The items, with a stage that moves when each has been worked on."""
    with stage(title, len(items), unit=unit) as whole:
        for item in items:
            yield item
            whole.advance()


def duration(seconds: float) -> str:
    """A time for people: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
