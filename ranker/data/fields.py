"""Readers for the fields of a row; an error names the row and the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, Final, get_args

from ranker.errors import DataError
from ranker.records import Message, Role, Spans, Turns

TURN: Final = re.compile(r"\n\n(Human|Assistant):[ \n]?")
STARTS: Final = re.compile(r"\s*Human:[ \n]")
SPEAKERS: Final[Mapping[str, Role]] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""ShareGPT's names (``{"from": ..., "value": ...}``) of roles with another name here."""

PAIRED: Final[Mapping[str, Role]] = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "human": "user",
    "ai": "assistant",
    "llm": "assistant",
    "bot": "assistant",
    "gpt": "assistant",
}
"""Names of roles in turns that are pairs of a role and a text."""

TURNS: Final = ("messages", "conversation", "conversations", "history", "trajectory", "prompt")
"""Columns of turns, not of answers."""

ASKING: Final = ("user", "system", "developer")
"""Roles that no answer has; an answer's own are the assistant's and those of its tools."""

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
    if isinstance(value, str):
        raise DataError(where, name, "expected a list of messages, got a text")
    if not isinstance(value, Sequence):
        raise DataError(where, name, f"expected text or a list of messages, got {kind(value)}")
    turns = []
    by_role = bool(value) and all(_is_role_and_text(turn) for turn in value)
    for i, turn in enumerate(value):
        if isinstance(turn, str):
            raise DataError(
                where,
                f"{name}[{i}]",
                "expected a message with role and content, got a text"
                + ("" if name in TURNS else "; answers are the columns chosen and rejected, or a list in candidates"),
            )
        if isinstance(turn, Mapping) and "role" not in turn and "from" in turn:
            speaker = turn["from"]
            role = SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
            more = {key: turn[key] for key in MESSAGE_KEYS if key in turn}
            turn = {"role": role, "content": turn.get("value", turn.get("content")), **more}  # noqa: PLW2901
        elif isinstance(turn, Mapping) and "content" not in turn and isinstance(turn.get("value"), str):
            turn = {**turn, "content": turn["value"]}  # noqa: PLW2901
        elif by_role:
            turn = {"role": PAIRED[turn[0].lower()], "content": turn[1]}  # noqa: PLW2901
        if isinstance(turn, Sequence) and not isinstance(turn, str) and len(turn) == 2:
            asked, answered = (text(part, where, f"{name}[{i}]") for part in turn)
            turns += [Message("user", asked), Message("assistant", answered)]
            continue
        turns.append(message(turn, where, f"{name}[{i}]"))
    return tuple(turns)


def _is_role_and_text(turn: Any) -> bool:
    """Whether a turn is a pair of a role and a text, not of a user's and an assistant's text."""
    pair = isinstance(turn, Sequence) and not isinstance(turn, str) and len(turn) == 2
    return pair and isinstance(turn[0], str) and turn[0].lower() in PAIRED


def message(value: Any, where: str, name: str) -> Message:
    """One message: its text, and what else of it chat templates read."""
    if not isinstance(value, Mapping) or value.get("role") not in get_args(Role):
        roles = ", ".join(get_args(Role))
        raise DataError(where, name, f"expected a message with role ({roles}) and content, got {value!r:.80}")
    more = {key: value[key] for key in MESSAGE_KEYS if key in value and not is_empty(value[key])}
    content = value.get("content")
    if content is None and not more.keys() & {"tool_calls", "function_call", "tool_responses"}:
        raise DataError(where, f"{name}.content", "expected text, got null; only a tool call has no content")
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


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, an empty text, list or mapping."""
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _parts(content: Any, where: str, name: str) -> list[str]:
    """The texts of a message's content: a text, or a list of ``{"type": "text", "text": ...}``."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence):
        raise DataError(where, name, f"expected text or a list of text parts, got {kind(content)}")
    texts_of_parts = []
    for i, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") != "text":
            got = part.get("type") if isinstance(part, Mapping) else kind(part)
            raise DataError(where, f"{name}[{i}]", f"expected a part of type text, got '{got}'; only text is read here")
        texts_of_parts.append(text(part.get("text"), where, f"{name}[{i}].text"))
    return texts_of_parts


def is_transcript(value: Any) -> bool:
    """Whether a text is a whole conversation in the form of ``transcript``: a turn of ``Human:``, then an answer."""
    return isinstance(value, str) and bool(STARTS.match(value)) and "\n\nAssistant:" in value


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


def transcript_prompt(value: str) -> list[dict[str, str]] | None:
    """Messages of a prompt that is a transcript up to the answer's ``Assistant:``; None for any other text."""
    if not is_transcript(value):
        return None
    *turns, last = transcript(value)
    return turns if last["role"] == "assistant" and not last["content"] else None


def split_answer(turns: tuple[Message, ...], where: str, name: str) -> tuple[tuple[Message, ...], str]:
    """The prompt of a conversation, up to the last turn that is not the answer's, and the answer: all that follows."""
    check_ends_with_answer(turns, where, name)
    asked = next((i for i in reversed(range(len(turns))) if turns[i].role in ASKING), -1)
    return turns[: asked + 1], answer_of(turns[asked + 1 :])


def check_ends_with_answer(turns: tuple[Message, ...], where: str, name: str) -> None:
    """Refuse messages that do not end with the assistant's."""
    if not turns or turns[-1].role != "assistant":
        raise DataError(where, name, "expected messages that end with an assistant turn")


def common_turns(
    conversations: Sequence[tuple[Message, ...]], where: str, names: Sequence[str]
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The turns that all conversations begin with, and the answers: what follows in each."""
    for turns, name in zip(conversations, names, strict=True):
        check_ends_with_answer(turns, where, name)
    most = min(map(len, conversations)) - 1
    first = conversations[0]
    same = next((i for i in range(most) if any(turns[i] != first[i] for turns in conversations)), most)
    return first[:same], tuple(answer_of(turns[same:]) for turns in conversations)


def answer_of(turns: tuple[Message, ...]) -> str:
    """The messages of an answer: the text of one that is no more than text."""
    plain = len(turns) == 1 and turns[0].role == "assistant" and not turns[0].source
    return turns[0].content if plain else Turns(turns)


def texts(value: Any, where: str, name: str) -> list[str]:
    """A list of texts."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of texts, got {kind(value)}")
    return [text(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def answers(value: Any, where: str, name: str) -> list[str]:
    """A list of answers, each in any of the forms of ``answer``; or the list as JSON, as in a cell of a CSV file."""
    value = listed(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of answers, got {kind(value)}")
    return [answer(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def answer(value: Any, where: str, name: str) -> str:
    """An answer as text, as LLM-Blender's ``{text}``, as the assistant's message, or as messages that end with it.

    Raises:
        DataError: messages that begin with a turn of the user: a conversation, which holds its prompt.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "text" in value:
        return text(value["text"], where, f"{name}.text")
    if is_messages(value):
        turns = messages(value if isinstance(value, Sequence) else [value], where, name)
        check_ends_with_answer(turns, where, name)
        if turns[0].role in ASKING:
            raise DataError(where, name, "expected an answer, got a conversation; give its prompt separately")
        return answer_of(turns)
    return text(value, where, name)


def is_messages(value: Any) -> bool:
    """Whether a value is a message or a list."""
    if isinstance(value, str):
        return False
    if isinstance(value, Mapping):
        return bool(value.keys() & {"role", "from"})
    return isinstance(value, Sequence)


def is_conversation(value: Any) -> bool:
    """Whether a value is messages that begin with another turn than an answer's, so that they hold their prompt."""
    if isinstance(value, str):
        return False
    first = value[0] if is_messages(value) and isinstance(value, Sequence) and value else None
    if not isinstance(first, Mapping):
        return False
    speaker = first.get("role", first.get("from"))
    return (SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker) in ASKING


def text(value: Any, where: str, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        got = kind(value) if value is None else f"{kind(value)} ({short(value)})"
        raise DataError(where, name, f"expected text, got {got}")
    return value


def listed(value: Any) -> Any:
    """A list that is written as JSON in a text, as in cells of a CSV file; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def many(value: Any, where: str, name: str, count: int) -> Sequence[Any]:
    """A list of one value per candidate."""
    value = listed(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list, got {kind(value)}")
    if len(value) != count:
        raise DataError(where, name, f"expected one for each of {count} candidates, got {len(value)}")
    return value


def scores(value: Any, where: str, name: str, count: int) -> list[float]:
    """One number per candidate, or true or false; NaN where it is null."""
    return [verdict(item, where, f"{name}[{i}]") for i, item in enumerate(many(value, where, name, count))]


def score(value: Any, where: str, name: str) -> float:
    """A finite number; NaN where it is null, or an empty cell of a CSV file."""
    return math.nan if value is None or value == "" else number(value, where, name)


def number(value: Any, where: str, name: str) -> float:
    """A finite number, or its text: the cells of a CSV file are texts."""
    try:
        converted = (
            float(value) if isinstance(value, Real | Decimal | str) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        converted = math.nan
    if not math.isfinite(converted):
        raise DataError(where, name, f"expected a finite number, got {short(value)}")
    return converted


def verdict(value: Any, where: str, name: str) -> float:
    """A label of one answer: a number, or true or false for 1 and 0; NaN where it is null."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    return score(value, where, name)


def kind(value: Any) -> str:
    """What a value is, for errors."""
    return "null" if value is None else type(value).__name__


def short(value: Any) -> str:
    """The beginning of a value's text, for errors."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**60:
        return "an integer of more than 60 digits"
    return f"{value!r:.60}"


def spans(value: Any, where: str, name: str, answer: str) -> Spans:
    """Parts of ``answer`` as ``[[start, end], ...]`` or ``[{start, end}, ...]``, in characters without the end."""
    if value is None:
        return ()
    if isinstance(answer, Turns):
        raise DataError(where, name, "expected an answer of one message with text, whose characters spans can count")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of [start, end], got {kind(value)}")
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
