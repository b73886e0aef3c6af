"""A call between the forward passes of a scorer, by which a server shares the processor and ends what nobody awaits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_call: ContextVar[Callable[[], object] | None] = ContextVar("_call", default=None)


@contextmanager
def calling_between_passes(call: Callable[[], object]) -> Iterator[None]:
    """Have ``call`` called after every pass that is computed within the block, in the thread that entered it.

    It may wait. What it raises ends the scoring.

    Example:
        >>> with calling_between_passes(turn.pass_on):
        ...     scorer.score(groups)
    """
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


def between_passes() -> None:
    """Call what the surrounding ``calling_between_passes`` asks for; called by what computes passes."""
    call = _call.get()
    if call is not None:
        call()
