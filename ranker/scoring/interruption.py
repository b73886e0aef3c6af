"""A call between the forward passes of a scorer, by which a server shares the processor and ends what nobody awaits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_call: ContextVar[Callable[[], object] | None] = ContextVar("_call", default=None)
_most: ContextVar[int | None] = ContextVar("_most", default=None)


@contextmanager
def calling_between_passes(call: Callable[[], object], most_passes: int | None = None) -> Iterator[None]:
    """Have ``call`` called after every pass that is computed within the block, in the thread that entered it.

    It may wait. What it raises ends the scoring. At most ``most_passes`` run at once; None: as many as the scorer runs.

    Example:
        >>> with calling_between_passes(turn.pass_on):
        ...     scorer.score(groups)
    """
    tokens = _call.set(call), _most.set(most_passes)
    try:
        yield
    finally:
        _call.reset(tokens[0])
        _most.reset(tokens[1])


def passes_at_once(wanted: int) -> int:
    """How many passes may run at once of those that a scorer would run."""
    most = _most.get()
    return wanted if most is None else min(wanted, most)


def between_passes() -> None:
    """Call what the surrounding ``calling_between_passes`` asks for; called by what computes passes."""
    call = _call.get()
    if call is not None:
        call()
