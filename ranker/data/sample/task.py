"""What a task is: a question whose right and wrong items are known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A question with a checkable answer.

    ``right`` are the items of the answer in order; ``wrong`` is, for each item, a plausible value that is not right.
    ``joiner`` puts items in one line.
    """

    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    joiner: str = ", "
