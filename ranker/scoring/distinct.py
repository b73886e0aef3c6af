"""What is read for groups: each answer once, where its score does not depend on its company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from ranker.records import Group, Prompt

LARGEST: Final = 64
"""Answers of one group that is read; more answers to a prompt are several groups."""

Place = tuple[int, int]
"""A group that is read, and one of its candidates."""


@dataclass(frozen=True, slots=True)
class Reading:
    """``groups`` is what is read, ``places`` where the candidates of each group that was asked for are in it."""

    groups: list[Group]
    places: list[list[Place]]


def as_they_come(groups: Sequence[Group]) -> Reading:
    """Every group as it is."""
    return Reading(list(groups), [[(g, i) for i in range(len(group.candidates))] for g, group in enumerate(groups)])


def once_per_group(groups: Sequence[Group]) -> Reading:
    """Each distinct candidate of a group once, in sorted order: for scores that depend on the company."""
    read = [Group(group.prompt, tuple(sorted(set(group.candidates)))) for group in groups]
    places = []
    for g, (group, canonical) in enumerate(zip(groups, read, strict=True)):
        place = {candidate: i for i, candidate in enumerate(canonical.candidates)}
        places.append([(g, place[candidate]) for candidate in group.candidates])
    return Reading(read, places)


def once(groups: Sequence[Group]) -> Reading:
    """Each distinct (prompt, candidate) of all groups once: for scores that depend on nothing else.

    Prompts stand in the order in which they come, candidates are sorted: the same texts make the same passes, whatever
    the groups that name them, and so the same scores to the last bit.
    """
    answers: dict[Prompt, set[str]] = {}
    for group in groups:
        answers.setdefault(group.prompt, set()).update(group.candidates)
    read: list[Group] = []
    place: dict[Prompt, dict[str, Place]] = {}
    for prompt, candidates in answers.items():
        in_order = sorted(candidates)
        for start in range(0, len(in_order), LARGEST):
            read.append(Group(prompt, tuple(in_order[start : start + LARGEST])))
        first = len(read) - -(-len(in_order) // LARGEST)
        place[prompt] = {text: (first + i // LARGEST, i % LARGEST) for i, text in enumerate(in_order)}
    return Reading(read, [[place[group.prompt][candidate] for candidate in group.candidates] for group in groups])


@dataclass(slots=True)
class Readings:
    """How many answers were asked for, and how many of them were read: each distinct one once, where it can be."""

    asked: int = 0
    read: int = 0

    def __str__(self) -> str:
        return f"{self.read:,} of {self.asked:,} answers read, each distinct one once"


_counting: ContextVar[tuple[Readings, ...]] = ContextVar("_counting", default=())


@contextmanager
def counted_readings() -> Iterator[Readings]:
    """Count what is read within the block, by whichever scorer."""
    readings = Readings()
    token = _counting.set((*_counting.get(), readings))
    try:
        yield readings
    finally:
        _counting.reset(token)


def note(reading: Reading) -> None:
    """Add what is read to the counts of the blocks that this call is in."""
    asked, read = sum(map(len, reading.places)), sum(len(group.candidates) for group in reading.groups)
    for readings in _counting.get():
        readings.asked += asked
        readings.read += read
