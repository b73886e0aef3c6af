"""Reply styles: each renders an answer, knows how a prompt asks for it, and checks a reply by program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ranker.data.sample.task import Task

Items = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Style:
    """One way to write an answer; ``asks`` are phrasings that demand it."""

    render: Callable[[Items, str], str]
    check: Callable[[str], bool]
    asks: tuple[str, ...]


def _json_in(reply: str) -> bool:
    match = re.search(r"\{.*\}", reply)
    if match is None:
        return False
    try:
        return "result" in json.loads(match.group())
    except json.JSONDecodeError:
        return False


STYLES: Final[dict[str, Style]] = {
    "sentence": Style(
        lambda items, joiner: f"The answer is {joiner.join(items)}.",
        lambda reply: "The answer is " in reply,
        (
            "Reply with a full sentence that begins with 'The answer is'.",
            "Please write it as a sentence of the form 'The answer is ...'.",
            "Use the sentence pattern 'The answer is ...'.",
        ),
    ),
    "json": Style(
        lambda items, joiner: json.dumps({"result": joiner.join(items)}, ensure_ascii=False),
        _json_in,
        (
            'Include a JSON object with the key "result".',
            'Format the answer as JSON under the key "result".',
            'The reply must hold JSON with one key, "result".',
        ),
    ),
    "brackets": Style(
        lambda items, joiner: f"[{joiner.join(items)}]",
        lambda reply: re.search(r"\[[^\]]+\]", reply) is not None,
        (
            "Write the answer inside square brackets.",
            "Enclose the answer in square brackets.",
            "Square brackets must surround the answer.",
        ),
    ),
    "list": Style(
        lambda items, joiner: "\n".join(f"- {item}" for item in items),
        lambda reply: re.search(r"^- ", reply, re.MULTILINE) is not None,
        (
            "Put every item on its own line after a dash.",
            "Answer as a bulleted list with dashes.",
            "Use one dash per item, each on a new line.",
        ),
    ),
    "numbered": Style(
        lambda items, joiner: "\n".join(f"{i}) {item}" for i, item in enumerate(items, 1)),
        lambda reply: re.search(r"^1\) ", reply, re.MULTILINE) is not None,
        (
            "Number the items as 1) and so on.",
            "Give a numbered list in the form 1), 2).",
            "Each item gets a number with a closing bracket, starting at 1).",
        ),
    ),
    "arrow": Style(
        lambda items, joiner: f"=> {joiner.join(items)}",
        lambda reply: "=> " in reply,
        (
            "Mark the answer with an arrow like =>.",
            "The answer must follow the sign =>.",
            "Start the answer itself with =>.",
        ),
    ),
}
"""Every style is asked for and used equally often, so the style of a reply does not reveal its quality."""


def holds(task: Task, reply: str) -> bool:
    """Whether a reply contains the right items, in order, and is therefore correct."""
    start = 0
    for item in task.right:
        match = re.compile(rf"(?<![\w-]){re.escape(item)}(?![\w-])").search(reply, start)
        if match is None:
            return False
        start = match.end()
    return True
