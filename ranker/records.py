"""The records: messages, groups to score, and labelled groups to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from ranker.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


Prompt = str | tuple[Message, ...]
Spans = tuple[tuple[int, int], ...]
"""Parts of a text: (start, end) in characters, the end not included."""


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and the candidate answers to it. Zero and one candidate are legal."""

    prompt: Prompt
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it is, the field, why, and the line as it was read.

    It keeps its place among the other rows, and its result says what ``str`` gives.
    """

    where: str
    field: str
    reason: str
    raw: str = ""

    def __str__(self) -> str:
        return str(self.error)

    @property
    def error(self) -> DataError:
        """The same as an exception, for callers that stop at the first bad row."""
        return DataError(self.where, self.field, self.reason, self.raw)

    @classmethod
    def of(cls, error: DataError) -> Self:
        """The row that an exception tells of."""
        return cls(error.where, error.field, error.reason, error.raw)


@dataclass(frozen=True, slots=True)
class Preference:
    """A labelled group.

    ``scores`` is (candidates, tasks), higher is better, NaN where a label is missing. A pair has two candidates, the
    preferred one first; ``label`` is then the probability that the first is better (1.0 a clear win, 0.5 a tie) and
    ``margin`` by how many logits it should lead. ``kinds`` optionally names the kind of each candidate, ``tasks`` the
    columns of ``scores``. ``spans``, one per candidate, are the parts of the answers that a token-level loss compares;
    without them it compares whole answers.
    """

    prompt: Prompt
    candidates: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    label: float | None = None
    margin: float | None = None
    id: str = ""
    subset: str = ""
    kinds: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    spans: tuple[Spans, ...] = ()

    @property
    def group(self) -> Group:
        """The unlabelled part."""
        return Group(self.prompt, self.candidates)

    def pairs(self) -> list[tuple[int, int, tuple[float, ...]]]:
        """All comparisons i < j with their target P(i better) per task, NaN where a label is missing.

        A pair with an explicit ``label`` has that target; otherwise 1, 0 or 0.5 by the order of the scores.
        """
        count = len(self.candidates)
        if self.label is not None and count == 2:
            return [(0, 1, (self.label,) * len(self.scores[0]))]
        return [
            (i, j, tuple(map(_preference, self.scores[i], self.scores[j])))
            for i in range(count)
            for j in range(i + 1, count)
        ]

    def labels(self) -> tuple[tuple[float, ...], ...]:
        """Graded labels (candidates, tasks); of a pair with a ``label``, the probability that each is better."""
        if self.label is not None and len(self.candidates) == 2:
            tasks = len(self.scores[0])
            return (self.label,) * tasks, (1 - self.label,) * tasks
        return self.scores


def _preference(left: float, right: float) -> float:
    if left != left or right != right:
        return float("nan")
    return 0.5 if left == right else float(left > right)


def subset_of(preference: Preference, chosen: Sequence[int]) -> Preference:
    """The same prompt with only the candidates ``chosen``, in that order.

    Raises:
        ValueError: a labelled pair was asked for in another order than its label (the label would change meaning).
    """
    if preference.label is not None:
        if list(chosen) != list(range(len(preference.candidates))):
            raise ValueError(f"a pair with label {preference.label} keeps its two candidates in order, got {chosen}")
        return preference
    return Preference(
        prompt=preference.prompt,
        candidates=tuple(preference.candidates[i] for i in chosen),
        scores=tuple(preference.scores[i] for i in chosen),
        margin=preference.margin,
        id=preference.id,
        subset=preference.subset,
        kinds=tuple(preference.kinds[i] for i in chosen) if preference.kinds else (),
        tasks=preference.tasks,
        spans=tuple(preference.spans[i] for i in chosen) if preference.spans else (),
    )
