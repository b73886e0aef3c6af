"""Which cases of a test run in ``make test``, and which only in ``make test-all``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def cases(values: Iterable[Any], quick: Callable[[Any], bool]) -> list[Any]:
    """Parameters of a test: ``make test`` runs those that ``quick`` picks, ``make test-all`` every one of them."""
    marked = []
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        marked.append(value if quick(value) else pytest.param(*parts, marks=pytest.mark.full))
    return marked
