"""Public names that go away: they warn for one minor version, and say what to use."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn(what: str, *, use: str, ends: str, stacklevel: int = 2) -> None:
    """Warn that something public goes away.

    Args:
        what: the name, as users write it: ``ranker.load(fast=)``.
        use: what to write instead.
        ends: the version that does not have it any more.
        stacklevel: frames between the user's line and this call, plus one.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("ranker.load(fast=)", use="precision='bf16'", ends="0.3")
        >>> print(caught[0].message)
        ranker.load(fast=) is deprecated and ends with version 0.3; use precision='bf16'
    """
    warnings.warn(
        f"{what} is deprecated and ends with version {ends}; use {use}", DeprecationWarning, stacklevel=stacklevel + 1
    )


def deprecated(*, use: str, ends: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as one that goes away: every call warns at the caller's line.

    Args:
        use: what to call instead.
        ends: the version that does not have it any more.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            warn(f"{function.__module__}.{function.__qualname__}()", use=use, ends=ends)
            return function(*args, **kwargs)

        return call

    return mark
