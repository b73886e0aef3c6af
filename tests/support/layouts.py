"""Layouts with few, recognisable ids: structure is below 100, texts are above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ranker.layouts import AnyLayout, PackedGroup, parse
from ranker.text.tokenizer import Ids

PAD, CLS, SEP = 0, 2, 3
SOURCE, FIRST, SECOND = 90, 91, 92

STRUCTURE: dict[str, dict[str, Any]] = {
    "pointwise": {"prefix": (CLS,), "between": (SEP,), "suffix": (SEP,)},
    "conversation": {"chat": {"template": "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }};{% endfor %}"}},
    "set_encoder": {"cls_id": CLS, "sep_id": SEP},
    "shared_prompt": {"cls_id": CLS, "sep_id": SEP, "markers": (SOURCE, FIRST)},
    "ordered_pair": {"cls_id": CLS, "sep_id": SEP, "markers": (SOURCE, FIRST, SECOND)},
    "judge": {"prefix": (10,), "between": (11,), "second": (12,), "suffix": (13, 14), "empty": (15,), "turns": ""},
    "steamshp": {"prefix": (10,), "between": (11,), "second": (12,), "suffix": (13, 14), "empty": (15,)},
}
"""The structure of every layout by its name."""


def layout(name: str, **changes: Any) -> AnyLayout:
    """A layout of 64 tokens of which the prompt keeps 8, with changes."""
    common = {"layout": name, "pad_id": PAD, "max_length": 64, "prompt_reserve": 8}
    return parse({**common, **STRUCTURE[name], **changes})


def pack(text: AnyLayout, prompt: Ids, answers: Sequence[Ids]) -> PackedGroup:
    """The rows of a group; of a layout that reads conversations whole, from whole rows."""
    if text.layout == "judge":
        return text.pack(prompt, [np.concatenate([answer, answer]) for answer in answers], list(map(len, answers)))
    if text.layout != "conversation":
        return text.pack(prompt, answers)
    head = np.concatenate([ids(CLS), prompt])
    rows = [np.concatenate([head, answer, ids(SEP)]) for answer in answers]
    return text.pack(head, rows, [len(head)] * len(rows))


def ids(*values: int) -> Ids:
    """A text."""
    return np.array(values, np.int32)
