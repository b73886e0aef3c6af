"""What is read for groups: each answer once, where its score does not depend on its company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from ranker.records import Group, Message, Prompt

LARGEST: Final = 64
"""Answers of one group that is read; more answers to a prompt are several groups."""

Place = tuple[int, int]
"""A group that is read, and one of its candidates."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """``groups`` are read, and ``places`` says where the candidates of each group that was asked for are among them."""

    groups: list[Group]
    places: list[list[Place]]


def as_they_come(groups: Sequence[Group]) -> ReadPlan:
    """Every group as it is."""
    return ReadPlan(list(groups), [[(g, i) for i in range(len(group.candidates))] for g, group in enumerate(groups)])


def once_per_group(groups: Sequence[Group]) -> ReadPlan:
    """Each distinct candidate of a group once, in sorted order: for scores that depend on the company."""
    read = [Group(group.prompt, tuple(sorted(set(group.candidates)))) for group in groups]
    places = []
    for g, (group, canonical) in enumerate(zip(groups, read, strict=True)):
        place = {candidate: i for i, candidate in enumerate(canonical.candidates)}
        places.append([(g, place[candidate]) for candidate in group.candidates])
    return ReadPlan(read, places)


def once(groups: Sequence[Group]) -> ReadPlan:
    """Each distinct (prompt, candidate) of all groups once: for scores that depend on nothing else.

    Prompts and candidates are sorted: the same texts make the same passes, whatever the groups that name them and their
    order, and so the same scores to the last bit.
    """
    answers: dict[str | tuple[Message, ...], set[str]] = {}
    for group in groups:
        answers.setdefault(hashable(group.prompt), set()).update(group.candidates)
    read: list[Group] = []
    place: dict[str | tuple[Message, ...], dict[str, Place]] = {}
    for prompt in sorted(answers, key=_sort_key):
        first, candidates = len(read), sorted(answers[prompt])
        for start in range(0, len(candidates), LARGEST):
            read.append(Group(prompt, tuple(candidates[start : start + LARGEST])))
        place[prompt] = {text: (first + i // LARGEST, i % LARGEST) for i, text in enumerate(candidates)}
    places = [[place[hashable(group.prompt)][candidate] for candidate in group.candidates] for group in groups]
    return ReadPlan(read, places)


def hashable(prompt: Prompt) -> str | tuple[Message, ...]:
    """The prompt; a list of messages as a tuple."""
    return prompt if isinstance(prompt, str) else tuple(prompt)


def _sort_key(prompt: str | tuple[Message, ...]) -> tuple[bool, str]:
    return (False, prompt) if isinstance(prompt, str) else (True, repr(prompt))


@dataclass(slots=True)
class ReadCount:
    """How many answers were asked for, how many times one was read, and the tokens and padding of that."""

    asked: int = 0
    read: int = 0
    tokens: int = 0
    padding: int = 0

    @property
    def saved(self) -> bool:
        """Whether an answer was asked for again and not read again."""
        return self.read < self.asked

    def __str__(self) -> str:
        return f"{self.read:,} of {self.asked:,} answers read, the others are repeats"


_counts: ContextVar[tuple[ReadCount, ...]] = ContextVar("_counts", default=())


@contextmanager
def count_reads() -> Iterator[ReadCount]:
    """Count what is read within the block, by whichever scorer."""
    count = ReadCount()
    token = _counts.set((*_counts.get(), count))
    try:
        yield count
    finally:
        _counts.reset(token)


def note(plan: ReadPlan) -> None:
    """Add what is read to the counts of the blocks that this call is in."""
    add_reads(ReadCount(sum(map(len, plan.places)), sum(len(group.candidates) for group in plan.groups)))


def add_reads(more: ReadCount) -> None:
    """Add what was asked for and read to the counts."""
    for count in _counts.get():
        count.asked += more.asked
        count.read += more.read
        count.tokens += more.tokens
        count.padding += more.padding


def counting() -> bool:
    """Whether this call is in a block that counts what is read."""
    return bool(_counts.get())
