"""Readers for the fields of a row; an error names the row and the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from ranker.errors import DataError
from ranker.records import Message, Role, Spans, Turns

TURN: Final = re.compile(r"\n\n(Human|Assistant):[ \n]?")
SPEAKERS: Final[Mapping[str, Role]] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""ShareGPT's names (``{"from": ..., "value": ...}``) of roles with another name here."""

MESSAGE_KEYS: Final = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "tool_calls",
    "function_call",
    "tool_responses",
    "tool_call_id",
    "name",
    "recipient",
    "end_turn",
)
"""What chat templates read of a message besides its role and content; other keys say things about the row."""


def messages(value: Any, where: str, name: str) -> tuple[Message, ...]:
    """Messages as ``{"role", "content"}``, as ShareGPT's ``{"from", "value"}``, or as pairs of user and assistant."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected text or a list of messages, got {type(value).__name__}")
    turns = []
    for i, turn in enumerate(value):
        if isinstance(turn, Mapping) and "role" not in turn and "from" in turn:
            speaker = turn["from"]
            role = SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
            turn = {"role": role, "content": turn.get("value")}  # noqa: PLW2901
        if isinstance(turn, Sequence) and not isinstance(turn, str) and len(turn) == 2:
            asked, answered = (text(part, where, f"{name}[{i}]") for part in turn)
            turns += [Message("user", asked), Message("assistant", answered)]
            continue
        turns.append(message(turn, where, f"{name}[{i}]"))
    return tuple(turns)


def message(value: Any, where: str, name: str) -> Message:
    """One message: its text, and what else of it chat templates read."""
    if not isinstance(value, Mapping) or value.get("role") not in get_args(Role):
        roles = ", ".join(get_args(Role))
        raise DataError(where, name, f"expected a message with role ({roles}) and content, got {value!r:.80}")
    more = {key: value[key] for key in MESSAGE_KEYS if value.get(key) is not None}
    content = value.get("content")
    if content is None and not more.keys() & {"tool_calls", "function_call", "tool_responses"}:
        raise DataError(where, f"{name}.content", "expected text, got NoneType (None); only a tool call has no content")
    parts = [] if content is None else _parts(content, where, f"{name}.content")
    if not more and isinstance(content, str):
        return Message(value["role"], content)
    calls = [json.dumps(more[key], ensure_ascii=False) for key in ("tool_calls", "function_call") if key in more]
    source = {"role": value["role"], "content": content, **more}
    try:
        return Message(
            value["role"], "\n".join(filter(None, ["".join(parts), *calls])), json.dumps(source, ensure_ascii=False)
        )
    except (TypeError, ValueError) as error:
        raise DataError(where, name, f"expected values as JSON has them ({error})") from None


def _parts(content: Any, where: str, name: str) -> list[str]:
    """The texts of a message's content: a text, or a list of ``{"type": "text", "text": ...}``."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence):
        raise DataError(where, name, f"expected text or a list of text parts, got {type(content).__name__}")
    texts_of_parts = []
    for i, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise DataError(
                where, f"{name}[{i}]", f"expected a part of type text, got '{kind}'; only text is read here"
            )
        texts_of_parts.append(text(part.get("text"), where, f"{name}[{i}].text"))
    return texts_of_parts


def transcript(value: str) -> list[dict[str, str]]:
    """Messages of an Anthropic transcript, whose turns begin with a blank line and ``Human:`` or ``Assistant:``.

    Raises:
        ValueError: the text does not begin with a turn.
    """
    pieces = TURN.split(value if value.startswith("\n\n") else f"\n\n{value.lstrip()}")
    if pieces[0].strip() or len(pieces) < 3:
        raise ValueError("expected a transcript that begins with 'Human:' or 'Assistant:'")
    roles = ("user" if name == "Human" else "assistant" for name in pieces[1::2])
    return [{"role": role, "content": content.strip()} for role, content in zip(roles, pieces[2::2], strict=True)]


def split_last(turns: tuple[Message, ...], where: str, name: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the last answer, and that answer."""
    if not turns or turns[-1].role != "assistant":
        raise DataError(where, name, "expected messages that end with an assistant turn")
    return turns[:-1], answer_of(turns[-1:])


def answer_of(turns: tuple[Message, ...]) -> str:
    """The messages of an answer: the text of one that is no more than text."""
    plain = len(turns) == 1 and turns[0].role == "assistant" and not turns[0].source
    return turns[0].content if plain else Turns(turns)


def texts(value: Any, where: str, name: str) -> list[str]:
    """A list of texts."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of texts, got {type(value).__name__}")
    return [text(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def answers(value: Any, where: str, name: str) -> list[str]:
    """A list of answers, each in any of the forms of ``answer``."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of answers, got {type(value).__name__}")
    return [answer(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def answer(value: Any, where: str, name: str) -> str:
    """An answer as text, as LLM-Blender's ``{text}``, as the assistant's message, or as messages that end with it.

    Messages that begin with another turn than the assistant's are a whole conversation: the answer is what follows the
    last turn of the user.
    """
    if isinstance(value, Mapping) and "text" in value:
        return text(value["text"], where, f"{name}.text")
    if isinstance(value, Mapping) and value.keys() & {"role", "from"}:
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        turns = messages(value, where, name)
        split_last(turns, where, name)
        asked = [i for i, turn in enumerate(turns) if turn.role in ("user", "system", "developer")]
        return answer_of(turns if turns[0].role == "assistant" or not asked else turns[asked[-1] + 1 :])
    return text(value, where, name)


def text(value: Any, where: str, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise DataError(where, name, f"expected text, got {type(value).__name__} ({value!r:.60})")
    return value


def many(value: Any, where: str, name: str, count: int) -> Sequence[Any]:
    """A list of one value per candidate."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list, got {type(value).__name__}")
    if len(value) != count:
        raise DataError(where, name, f"expected one for each of {count} candidates, got {len(value)}")
    return value


def scores(value: Any, where: str, name: str, count: int) -> list[float]:
    """One number per candidate, NaN where it is null."""
    return [score(item, where, f"{name}[{i}]") for i, item in enumerate(many(value, where, name, count))]


def score(value: Any, where: str, name: str) -> float:
    """A finite number, NaN where it is null."""
    return math.nan if value is None else number(value, where, name)


def number(value: Any, where: str, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(where, name, f"expected a finite number, got {value!r:.60}")
    return float(value)


def spans(value: Any, where: str, name: str, answer: str) -> Spans:
    """Parts of ``answer`` as ``[[start, end], ...]`` or ``[{start, end}, ...]``, in characters without the end."""
    if value is None:
        return ()
    if isinstance(answer, Turns):
        raise DataError(where, name, "expected an answer of one message with text, whose characters spans can count")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of [start, end], got {type(value).__name__}")
    return tuple(_span(item, where, f"{name}[{i}]", len(answer)) for i, item in enumerate(value))


def _span(value: Any, where: str, name: str, length: int) -> tuple[int, int]:
    ends = (value.get("start"), value.get("end")) if isinstance(value, Mapping) else value
    if (
        not isinstance(ends, Sequence)
        or len(ends) != 2
        or not all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
        or not 0 <= ends[0] < ends[1] <= length
    ):
        raise DataError(
            where,
            name,
            f"expected [start, end] with 0 <= start < end <= {length}, the answer's characters; got {value!r:.60}",
        )
    return ends[0], ends[1]
