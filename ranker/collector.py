"""Python's cyclic garbage collector, paused while many objects are made that hold no cycles."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

FULL_SECONDS: Final = 60.0
"""Time between two full collections while the collector is paused, as it is for hours in a busy server."""

_lock = Lock()
_pauses = 0
_was_enabled = False
_last_full = time.monotonic()


@contextmanager
def paused() -> Iterator[None]:
    """Within, the collector does not start by itself; what holds no cycles is freed at once, as always.

    A full collection looks at every object of torch and transformers. Making the rows of some thousand answers starts
    several, which takes longer than making them. Blocks may overlap, in one thread or in several: the collector goes on
    after the last of them, if it was on before the first.

    Example:
        >>> import gc
        >>> with paused():
        ...     print(gc.isenabled())
        False
    """
    global _pauses, _was_enabled
    with _lock:
        if not _pauses:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_enabled:
                gc.enable()


def collect() -> None:
    """Free cycles among the objects made since the last call, and once in ``FULL_SECONDS`` among all.

    It is called now and then in a long pause, so that no memory is lost in one.
    """
    global _last_full
    now = time.monotonic()
    if now - _last_full > FULL_SECONDS:
        _last_full = now
        gc.collect()
    else:
        gc.collect(0)
