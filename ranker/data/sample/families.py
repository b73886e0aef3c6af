"""The task families by name, and which splits they appear in."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from ranker.data.sample import lookup, reckoning
from ranker.data.sample.task import Task

TRAINED: Final[dict[str, Callable[[Random], Task]]] = {
    "arithmetic": reckoning.arithmetic,
    "units": reckoning.units,
    "dates": reckoning.dates,
    "sorting": reckoning.sorting,
    "filtering": lookup.filtering,
    "editing": lookup.editing,
    "table": lookup.table,
    "reading": lookup.reading,
    "code": reckoning.code,
    "opposites": lookup.opposites,
    "glossary": lookup.glossary,
    "counting": reckoning.counting,
}
"""Families of all three splits."""

UNSEEN: Final[dict[str, Callable[[Random], Task]]] = {
    "schedule": lookup.schedule,
    "extraction": lookup.extraction,
    "comparing": reckoning.comparing,
    "settings": lookup.settings,
}
"""Families that only the test split has."""

FAMILIES: Final = {**TRAINED, **UNSEEN}


def draw(family: str, rng: Random) -> Task:
    """A task of a family in which every wrong item really differs from the right one."""
    while True:
        task = FAMILIES[family](rng)
        if all(right != wrong for right, wrong in zip(task.right, task.wrong, strict=True)):
            return task
