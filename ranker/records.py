"""The records: messages, groups to score, and labelled groups to learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from ranker.errors import DataError

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``content`` is its text, as encoders and reports read it. A message that holds more (``tool_calls``, ``name``,
    reasoning, a list of text parts, content null) has all of it in ``source``, as JSON: chat templates read that.
    """

    role: Role
    content: str
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The message as chat templates read it."""
        return json.loads(self.source) if self.source else {"role": self.role, "content": self.content}


class Turns(str):
    """An answer of several messages, or of one that is more than text.

    As a string it is the text that encoders and reports read; chat templates read ``messages``.

    Example:
        >>> answer = Turns((Message("assistant", "Which city?"), Message("user", "Rome"), Message("assistant", "Sun.")))
        >>> print(answer)
        Which city?
        User: Rome
        Assistant: Sun.
    """

    __slots__ = ("messages",)
    messages: tuple[Message, ...]

    def __new__(cls, messages: Sequence[Message]) -> Self:
        """The text of the messages; the first assistant's has no ``Assistant:`` before it."""
        lines = [
            message.content
            if i == 0 and message.role == "assistant"
            else f"{message.role.capitalize()}: {message.content}"
            for i, message in enumerate(messages)
        ]
        turns = super().__new__(cls, "\n".join(lines))
        turns.messages = tuple(messages)
        return turns

    def __getnewargs__(self) -> tuple[tuple[Message, ...]]:  # type: ignore[override]
        return (self.messages,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Turns) and self.messages == other.messages

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.messages)


def plain_answer(answer: str) -> str | list[dict[str, Any]]:
    """An answer as rows hold it: its text, or its messages."""
    return [message.to_dict() for message in answer.messages] if isinstance(answer, Turns) else str(answer)


def plain_prompt(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A prompt as rows hold it: its text, or its messages."""
    return prompt if isinstance(prompt, str) else [message.to_dict() for message in prompt]


class Rendered(str):
    r"""A whole conversation as text, to which its model's chat template was applied already.

    As an answer it holds its prompt; the prompt of its group is not read. Special tokens in it are recognised.
    ``add_special_tokens`` says whether the tokenizer adds those of its own, as servers do that take single texts.

    Example:
        >>> Rendered("<|im_start|>user\nHi<|im_end|>").add_special_tokens
        False
    """

    __slots__ = ("add_special_tokens",)
    add_special_tokens: bool

    def __new__(cls, text: str, *, add_special_tokens: bool = False) -> Self:
        """The text as it is."""
        rendered = super().__new__(cls, text)
        rendered.add_special_tokens = add_special_tokens
        return rendered

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, bool]]:
        return (str(self),), {"add_special_tokens": self.add_special_tokens}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rendered) and str(self) == str(other) and self._adds(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((str(self), self.add_special_tokens))

    def _adds(self, other: Rendered) -> bool:
        return self.add_special_tokens == other.add_special_tokens


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
