"""From messages to the plain text that an encoder reads."""

from __future__ import annotations

from typing import Final

from ranker.records import Prompt

SURROGATES: Final = {code: "�" for code in range(0xD800, 0xE000)}
"""Lone surrogates are legal in JSON but not in UTF-8; tokenizers refuse the whole batch that holds one."""


def render_prompt(prompt: Prompt) -> str:
    """Render a prompt as text: a string as it is, one user message as its content, more as ``Role: content`` lines."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt)


def clean(text: str) -> str:
    """Replace lone surrogates by U+FFFD; everything else is kept."""
    return text if text.isascii() else text.translate(SURROGATES)
