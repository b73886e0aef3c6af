"""Parts that the wire formats share: texts, turns, responses, and the numbers of results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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


def example(**values: Any) -> ConfigDict:
    """The settings of a body whose example ``/docs`` shows, ready to be sent."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Shape(BaseModel):
    """A body; unknown fields are named in a header, because clients of the replicated routes send more than is read.

    A null is the field's default, as in the replicated servers.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class Strict(Shape):
    """A body of this package's own routes, whose unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Cut(Shape):
    """How texts that are too long are cut, as clients of TEI, vLLM and Cohere ask for it.

    A model of this package cuts an answer at its end and a prompt at its beginning, at its ``max_length``. What asks
    for anything else is refused.
    """

    truncate: bool = Field(True, description="TEI's; false: 413 where a text would be cut")
    truncation_direction: str | None = Field(None, description="TEI's; only right")
    truncate_prompt_tokens: int | None = Field(None, description="vLLM's; only -1, or the model's length or more")
    truncation_side: str | None = Field(None, description="vLLM's; only right")
    max_tokens_per_doc: int | None = Field(None, description="Cohere's; 422 where a document has more")
    max_chunks_per_doc: int | None = Field(None, description="Cohere's; not supported")
    rank_fields: list[str] | None = Field(None, description="Cohere's; only text")

    async def check(self, server: Server, texts: Sequence[str], where: str) -> None:
        """Refuse what this model does not do.

        Args:
            server: the model.
            texts: the documents or answers.
            where: the body's field that holds them, for errors.

        Raises:
            UnprocessableError: naming the field.
        """
        most = server.scorer.info.max_length
        for name in ("truncation_direction", "truncation_side"):
            side = getattr(self, name)
            if side is not None and side.lower() != "right":
                raise UnprocessableError([name], f"expected right: answers are cut at their end; got '{side:.20}'")
        tokens = self.truncate_prompt_tokens
        if tokens is not None and tokens != -1 and tokens < most:
            raise UnprocessableError(
                ["truncate_prompt_tokens"], f"expected -1 or at least {most}, the model's length; got {tokens}"
            )
        if self.max_chunks_per_doc is not None:
            raise UnprocessableError(["max_chunks_per_doc"], "documents are not read in chunks; leave it out")
        if self.rank_fields is not None and self.rank_fields != ["text"]:
            raise UnprocessableError(["rank_fields"], "expected text, the field of a document that is read")
        if self.max_tokens_per_doc is not None and self.max_tokens_per_doc < most:
            counts = await asyncio.to_thread(server.scorer.token_counts, Group("", tuple(texts)))
            for number, count in enumerate(counts):
                if count > self.max_tokens_per_doc:
                    raise UnprocessableError(
                        ["max_tokens_per_doc"],
                        f"{where}[{number}] has {count} tokens, more than {self.max_tokens_per_doc}; shorten it, or "
                        f"leave the field out: rows are cut at {most} tokens",
                    )

    def check_results(
        self, server: Server, results: Sequence[GroupScores], where: str, numbers: Sequence[Sequence[int]] = ()
    ) -> None:
        """Refuse results of texts that were cut, where ``truncate`` is false.

        Args:
            server: the model.
            results: one per group.
            where: the body's field that holds the texts.
            numbers: of each group the places of its answers in that field; default: groups of one, or one group.

        Raises:
            UnprocessableError: with the status 413, as TEI has it.
        """
        if self.truncate:
            return
        for group, result in enumerate(results):
            if result.prompt_truncated or result.truncated.any():
                answer = int(result.truncated.argmax())
                place = numbers[group][answer] if numbers else answer if len(results) == 1 else group
                raise UnprocessableError(
                    ["truncate"],
                    f"the text or pair {place} of {where} is longer than the model's {server.scorer.info.max_length} "
                    "tokens; shorten it, or leave out truncate",
                    413,
                )


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


def answer_of(value: str | Turns, where: Sequence[str | int]) -> str:
    """A body's answer, which may be several messages.

    Raises:
        UnprocessableError: the messages are no answer.
    """
    if isinstance(value, str):
        return value
    try:
        return fields.answer([turn.model_dump(exclude_unset=True) for turn in value], "", "")
    except DataError as error:
        raise UnprocessableError(where, f"{error.field}: {error.reason}".lstrip(": ")) from error


def conversation(turns: Turns, where: Sequence[str | int]) -> Group:
    """A conversation's answer, all that follows the last turn of the user, after the turns before it.

    Raises:
        UnprocessableError: it does not end with the assistant's turn.
    """
    if not turns or turns[-1].role != "assistant":
        raise UnprocessableError(where, "expected messages that end with the assistant's")
    prompt, answer = fields.split_answer(messages_of(turns, where), "", "")
    return Group(prompt, (answer,))


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
    server: Server, request: Request, prompts: Sequence[str], answers: Sequence[str], where: str, cut: Cut | None = None
) -> list[float]:
    """Scores (pairs,) of (prompt, answer) pairs, in logits; the answers to equal prompts are scored as one group.

    Args:
        server: the model.
        request: the request, whose client is watched.
        prompts: one per pair.
        answers: one per pair.
        where: the body's field that holds the answers, for errors.
        cut: how the client asks for long texts to be cut.

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
    results = await server.score(request, groups, alone=True)
    if cut is not None:
        cut.check_results(server, results, where, list(members.values()))
    for numbers, result in zip(members.values(), results, strict=True):
        if result.error is not None:
            raise UnprocessableError([where, numbers[0]], result.error)
        for number, score in zip(numbers, result.scores.tolist(), strict=True):
            ordered_scores[number] = score
    return ordered_scores
