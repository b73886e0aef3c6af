"""A chat template as ids: the structure it puts around turns, learned by rendering sentinels once.

A template's output mixes trusted structure and user text. Splitting a rendering at sentinels keeps the two apart: the
structure is stored as ids, user text is encoded on its own and cannot become structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ranker.errors import ConfigError
from ranker.records import Message, Prompt

SENTINELS: Final = ("\u2983one\u2984", "\u2983two\u2984", "\u2983three\u2984", "\u2983four\u2984")
UNFAITHFUL: Final = "expected a chat template that keeps the content of user and assistant turns as it is, each once"
Render = Callable[[list[dict[str, str]]], str]


def template_parts(render: Render, encode: Callable[[str], Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The ids around turns: ``prefix``, ``between`` user and assistant, ``turn`` from assistant to user, ``suffix``.

    Args:
        render: from messages to the template's text, without a generation prompt.
        encode: from trusted text to ids, special tokens recognised, none added.

    Raises:
        ConfigError: the template drops, changes or repeats the content of turns.
    """
    roles = ("user", "assistant", "user", "assistant")
    text = render([{"role": role, "content": content} for role, content in zip(roles, SENTINELS, strict=True)])
    pieces = []
    for sentinel in SENTINELS:
        piece, separator, text = text.partition(sentinel)
        pieces.append(piece)
        if not separator:
            raise ConfigError(UNFAITHFUL)
    if any(sentinel in piece for piece in [*pieces, text] for sentinel in SENTINELS):
        raise ConfigError(UNFAITHFUL)  # the content of a turn would become structure
    prefix, between, turn = (tuple(encode(piece)) for piece in pieces[:3])
    return {"prefix": prefix, "between": between, "turn": turn, "suffix": tuple(encode(text))}


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    """A prompt as (role, text) turns that alternate and both begin and end with the user.

    System and tool texts become part of the user turn they belong to; turns of one role in a row are joined.
    """
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    result: list[tuple[str, str]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if result and result[-1][0] == role:
            result[-1] = (role, f"{result[-1][1]}\n\n{message.content}")
        else:
            result.append((role, message.content))
    if not result or result[0][0] == "assistant":
        result.insert(0, ("user", ""))
    if result[-1][0] == "assistant":
        result.append(("user", ""))
    return result
