"""Python's cyclic garbage collector, paused while many objects are made that hold no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_pauses = 0
_was_enabled = False


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


def collect_young() -> None:
    """Free cycles among the objects made since the last call: a pause that lasts an hour must not fill the memory."""
    gc.collect(0)
