"""How many padded tokens a forward pass reads: given, or found while rows are scored."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

logger = logging.getLogger(__name__)

TRIALS: Final = 2
"""Slices of work that are timed under each choice."""

BATCHES: Final = 32
"""Batches of a slice, whose rows are sorted by length."""

TIMED_BATCHES: Final = 8
"""Batches of the largest choice in a slice that is timed."""

EACH: Final = 8
"""Batches of a slice for each worker, at least."""

TIMED_EACH: Final = 2
"""The same in a slice that is timed, in batches of the largest choice."""


GAIN: Final = 1.1
"""How much faster than the first choice another one must be."""

_fixed: ContextVar[int | None] = ContextVar("_fixed", default=None)


@contextmanager
def fixed_tokens(tokens: int) -> Iterator[None]:
    """Score within the block with passes of at most so many padded tokens, whatever the scorer would choose.

    0 lets it choose.
    """
    token = _fixed.set(tokens or None)
    try:
        yield
    finally:
        _fixed.reset(token)


def tokens_now() -> int | None:
    """The tokens of the surrounding ``fixed_tokens``."""
    return _fixed.get()


class TokenBudget:
    """Padded tokens of a forward pass.

    With several choices each is used for ``TRIALS`` slices of the work itself, one after the other, and the fastest of
    them from then on: finding it costs nothing but slices that were slower. The first choice is left only for one that
    is faster by ``GAIN``: rows of ever different lengths share few passes, and then all choices are alike.

    Args:
        choices: what may be taken; one of them is a fixed budget.
        on_settled: called with the fastest once it is known.
        workers: passes that run at once; slices hold enough for all of them.
    """

    def __init__(
        self, choices: Sequence[int], on_settled: Callable[[int], None] | None = None, *, workers: int = 1
    ) -> None:
        self.wanted = max(choices)
        self._speeds: dict[int, list[float]] = {choice: [] for choice in choices}
        self._on_settled = on_settled
        self._workers = workers
        self._noting = threading.Lock()

    def lower(self, failed: int) -> None:
        """Read at most half of ``failed`` padded tokens from now on: a pass of that many ran out of memory."""
        with self._noting:
            if min(self._speeds) * 2 <= failed:  # another pass of the same slice said so before
                return
            fitting = {choice: speeds for choice, speeds in self._speeds.items() if 2 * choice <= failed}
            self._speeds = fitting or {max(1, failed // 2): []}
        logger.warning(
            "out of memory with %d tokens in a forward pass; later passes have at most %d", failed, max(self._speeds)
        )

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to try."""
        return len(self._speeds) == 1

    @property
    def tokens(self) -> int:
        """What the next slice is cut by."""
        speeds = self._speeds  # another thread may settle it
        return min(speeds, key=lambda choice: len(speeds[choice]))

    @property
    def slice_tokens(self) -> int:
        """Padded tokens of the next slice."""
        if self.settled:
            return max(BATCHES, EACH * self._workers) * self.tokens
        return max(TIMED_BATCHES, TIMED_EACH * self._workers) * max(self._speeds)

    @contextmanager
    def timed(self, tokens: int) -> Iterator[int]:
        """The budget for a slice of ``tokens`` padded tokens, whose time is noted if the slice is a full one."""
        choice, start = self.tokens, time.perf_counter()
        yield choice
        with self._noting:
            if self.settled or tokens < self.slice_tokens:
                return
            self._speeds[choice].append(tokens / (time.perf_counter() - start))
            if all(len(speeds) >= TRIALS for speeds in self._speeds.values()):
                first, *_ = self._speeds
                speeds = {choice: max(known) for choice, known in self._speeds.items()}
                best = max(speeds, key=speeds.__getitem__)
                best = best if speeds[best] >= GAIN * speeds[first] else first
                self._speeds = {best: []}
                if self._on_settled is not None:
                    self._on_settled(best)
