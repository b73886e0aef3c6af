"""Turns at computing: a few batches compute at a time, and a long one lets the others go between its passes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

TURN_S: Final = 0.1
"""Seconds after which a batch lets a waiting one compute; it does so between two passes."""


@dataclass(slots=True, eq=False)
class Turn:
    """One batch's right to compute; ``since`` is in seconds of ``time.monotonic``."""

    is_long: bool
    since: float = 0.0


class Turns:
    """Who computes now, first come, first served.

    Args:
        places: batches that compute at a time. Long batches get all but one of them, or the only one.

    Example:
        >>> turns = Turns(2)
        >>> with turns.turn(is_long=False) as turn:
        ...     turns.pass_on(turn)  # between two passes
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._long_places = max(1, places - 1)
        self._computing: list[Turn] = []
        self._waiting: deque[Turn] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, *, is_long: bool) -> Iterator[Turn]:
        """Wait for a place, and keep it within the block."""
        turn = Turn(is_long)
        self._begin(turn)
        try:
            yield turn
        finally:
            self._end(turn)

    def pass_on(self, turn: Turn) -> None:
        """Let a waiting batch compute first, when this turn has lasted ``TURN_S``."""
        if time.monotonic() - turn.since < TURN_S:
            return
        with self._changed:
            if not self._waiting:
                turn.since = time.monotonic()
                return
        self._end(turn)
        self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._is_next(turn))
            self._waiting.remove(turn)
            self._computing.append(turn)
            turn.since = time.monotonic()
            self._changed.notify_all()

    def _end(self, turn: Turn) -> None:
        with self._changed:
            if turn in self._computing:
                self._computing.remove(turn)
            self._changed.notify_all()

    def _is_next(self, turn: Turn) -> bool:
        if len(self._computing) >= self._places:
            return False
        has_long_place = sum(other.is_long for other in self._computing) < self._long_places
        return next((other for other in self._waiting if has_long_place or not other.is_long), None) is turn
