"""Parts that the wire formats share: texts, turns, responses, and the numbers of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ranker.data import fields
from ranker.errors import DataError
from ranker.records import Group, Message, Prompt
from ranker.scoring.protocol import Floats, GroupScores, rendered_group
from ranker.serving.limits import UnprocessableError
from ranker.serving.server import Server

T = TypeVar("T")
MAX_ENTRIES: Final = 65_536
"""Most entries of a list in a body."""

Text = Annotated[str, StringConstraints(strict=True)]
Many = Annotated[list[T], Field(max_length=MAX_ENTRIES, fail_fast=True)]
"""A list whose first wrong entry is the only one that is reported: a body of wrong entries costs no more than one."""


class JSONText(JSONResponse):
    """A JSON response that may repeat texts of the request.

    Half of a surrogate pair, as in a text that was cut within an emoji, is written as its JSON escape.
    """

    def render(self, content: Any) -> bytes:
        """The bytes of the body; NaN is an error."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


class Shape(BaseModel):
    """A body; unknown fields are ignored, as the clients of the replicated routes expect."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Turn(Shape):
    """One message of a conversation: text or text parts, tool calls, and what else chat templates read."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Many[dict[str, Any]] | None = None


Turns = Many[Turn]


def messages_of(turns: Turns, where: Sequence[str | int] = ()) -> tuple[Message, ...]:
    """A body's messages.

    Raises:
        UnprocessableError: one has no text, or parts that are no text.
    """
    try:
        return tuple(fields.message(turn.model_dump(), "", f"[{i}]") for i, turn in enumerate(turns))
    except DataError as error:
        raise UnprocessableError(where, f"messages{error.field}: {error.reason}") from error


def prompt_of(prompt: str | Turns) -> Prompt:
    """A body's prompt as a ``Prompt``."""
    return prompt if isinstance(prompt, str) else messages_of(prompt)


def conversation(turns: Turns, where: Sequence[str | int]) -> Group:
    """A conversation's last turn, the assistant's, after the ones before it.

    Raises:
        UnprocessableError: it does not end with the assistant's turn.
    """
    if not turns or turns[-1].role != "assistant":
        raise UnprocessableError(where, "expected messages that end with the assistant's")
    messages = messages_of(turns, where)
    return Group(messages[:-1], (fields.answer_of(messages[-1:]),))


def whole_text(server: Server, text: str, *, add_special_tokens: bool = False) -> Group:
    """One text as its server's clients mean it: rendered already, where the model renders conversations.

    Args:
        server: the model; an encoder reads the text as an answer without a prompt.
        text: prompt and answer in one.
        add_special_tokens: whether the replicated server lets the tokenizer add its own.
    """
    group = Group("", (text,))
    info = server.scorer.info
    return rendered_group(group, info, add_special_tokens=add_special_tokens) if info.renders_conversations else group


def scores_of(results: Sequence[GroupScores], where: Sequence[str | int] = ()) -> list[Floats]:
    """The scores of all results: one array (candidates,) of logits per group.

    Raises:
        UnprocessableError: a group could not be scored; its number follows ``where`` in the error's location.
    """
    for number, result in enumerate(results):
        if result.error is not None:
            raise UnprocessableError([*where, number] if where else [], result.error)
    return [result.scores for result in results]


async def together(
    server: Server, request: Request, prompts: Sequence[str], answers: Sequence[str], where: str
) -> list[float]:
    """Scores (pairs,) of (prompt, answer) pairs, in logits; the answers to equal prompts are scored as one group.

    Args:
        server: the model.
        request: the request, whose client is watched.
        prompts: one per pair.
        answers: one per pair.
        where: the body's field that holds the answers, for errors.

    Raises:
        UnprocessableError: one could not be scored.
    """
    members: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(number)
    if not members:
        return []
    groups = [Group(prompt, tuple(answers[number] for number in numbers)) for prompt, numbers in members.items()]
    ordered_scores = [0.0] * len(answers)
    for numbers, result in zip(members.values(), await server.score(request, groups, alone=True), strict=True):
        if result.error is not None:
            raise UnprocessableError([where, numbers[0]], result.error)
        for number, score in zip(numbers, result.scores.tolist(), strict=True):
            ordered_scores[number] = score
    return ordered_scores
