"""Rows that nobody thought of: whatever they hold, they are read whole, or refused in one line that names the field."""

import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranker.data.formats import PROMPTS, parse_group, parse_preference
from ranker.data.read_row import FACTS, LABELS, UnusedColumns
from ranker.data.shapes import shape_of
from ranker.errors import DataError
from ranker.records import Turns
from tests.data.test_real_rows import ROWS

EXAMPLES = int(os.environ.get("RANKER_ROWS", "300"))
"""Rows that are tried; 100,000 take some minutes."""

MARK = re.compile("<[0-9]+>")
SEEDS = [case.row for case in ROWS.values()]
NAMES = sorted({name for row in SEEDS for name in row} | {*PROMPTS, *LABELS, "note", "margin", "spans", "reference"})
VALUES = [
    None,
    "",
    " ",
    "<>",
    "\n\nHuman: <>\n\nAssistant: <>",
    "\n\nHuman: <>\n\nAssistant:",
    "<> \ud83d",
    '["<>", "<>"]',
    0,
    -1,
    True,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    [],
    ["<>"],
    ["<>", "<>"],
    [1, 2],
    [None],
    [[]],
    [["<>", "<>"]],
    {},
    {"text": "<>"},
    {"a": "<>"},
    {"role": "assistant", "content": "<>"},
    [{"role": "assistant", "content": "<>"}],
    [{"role": "user", "content": "<>"}],
    [{"role": "user", "content": "<>"}, {"role": "assistant", "content": "<>"}],
    [{"from": "human", "value": "<>"}, {"from": "gpt", "value": "<>", "model": "<>"}],
    [{"role": "assistant", "content": None, "tool_calls": [{"name": "<>"}]}, {"role": "tool", "content": "<>"}],
    [{"role": "user", "content": [{"type": "text", "text": "<>"}]}],
    [{"role": 3, "content": "<>"}],
    [{"text": "<>", "scores": {"a": 1}}, {"text": "<>", "scores": {"a": None}}],
    [{"answer": "<>", "rank": 1}],
]


@st.composite
def rows(draw):
    """A row of the table with some columns taken away, renamed, or holding something else."""
    row = dict(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        change, name = draw(st.sampled_from(["set", "drop", "move", "swap"])), draw(st.sampled_from(NAMES))
        others = sorted(row)
        if change == "set" or not others:
            row[name] = draw(st.sampled_from(VALUES))
        elif change == "drop":
            del row[draw(st.sampled_from(others))]
        elif change == "move":
            row[name] = row.pop(draw(st.sampled_from(others)))
        else:
            first, second = draw(st.sampled_from(others)), draw(st.sampled_from(others))
            row[first], row[second] = row[second], row[first]
    return marked(row, iter(range(10**6)))


def marked(value, numbers):
    """The value with a number of its own in every text, so that each can be looked for."""
    if isinstance(value, str):
        if MARK.search(value) or not value.strip():
            return value
        if "<>" in value:
            return re.sub("<>", lambda _: f"<{next(numbers)}>", value)
        return value
    if isinstance(value, dict):
        fixed = ("role", "from", "type")
        return {key: inner if key in fixed else marked(text_of(key, inner), numbers) for key, inner in value.items()}
    return [marked(text_of("", inner), numbers) for inner in value] if isinstance(value, list) else value


def text_of(key, value):
    """A text of the table with a place for its number."""
    plain = isinstance(value, str) and value.strip() and "<" not in value
    structured = plain and (value.startswith(("[", "\n\nHuman")) or "<extra_id" in value)
    return f"{value} <>" if plain and not structured and key not in CODES else value


CODES = ("winner", "label", "orig_preference", "Rating", "accept", "winner_model_a", "winner_model_b", "winner_tie")
"""Keys whose texts say which answer is better."""


def marks_of(value):
    """The numbers in all texts of a value."""
    if isinstance(value, str):
        return set(MARK.findall(value))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {mark for part in parts for mark in marks_of(part)}


def written(group):
    """All that is read of a group, as one text."""
    texts = [group.prompt] if isinstance(group.prompt, str) else [f"{m.content} {m.source}" for m in group.prompt]
    for answer in group.candidates:
        texts += [f"{m.content} {m.source}" for m in answer.messages] if isinstance(answer, Turns) else [answer]
    return "\n".join(texts)


def check(row, read, unused_names, facts):
    """Every text of a row is read, or its column is named, or the column is no text for the model."""
    text = written(read)
    shape = shape_of(row)
    for name, value in row.items():
        if name in FACTS or name in facts or name in unused_names or (shape is not None and name in shape.columns):
            continue
        keys = {key.rpartition(".")[2] for key in unused_names if key.startswith((f"{name}[", f"{name}."))}
        missing = marks_of(without(value, keys)) - set(MARK.findall(text))
        assert not missing, (name, missing)


def without(value, keys):
    """A value without the keys that were named, and without scores, which are no text."""
    if isinstance(value, dict):
        return {key: without(inner, keys) for key, inner in value.items() if key not in {*keys, "scores"}}
    return [without(inner, keys) for inner in value] if isinstance(value, list) else value


def outcome(parse, row):
    """What is read of a row and the columns that are named, or the refusal."""
    unused = UnusedColumns()
    try:
        return parse(row, "rows.jsonl:7", None, unused), unused.names
    except DataError as error:
        return error, []


@pytest.mark.parametrize("parse", [parse_group, parse_preference])
@given(row=rows())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_row_is_read_whole_or_refused(parse, row):
    read, names = outcome(parse, row)
    if isinstance(read, DataError):
        assert read.where == "rows.jsonl:7"
        assert read.field
        assert "\n" not in str(read)
        assert len(str(read)) < 2000
    else:
        check(row, read, names, {"source"} if parse is parse_preference else set())


def test_every_text_of_a_row_that_is_tried_has_its_number():
    row = marked({"prompt": "Hi", "chosen": [{"role": "assistant", "content": "yes"}]}, iter(range(9)))
    assert row == {"prompt": "Hi <0>", "chosen": [{"role": "assistant", "content": "yes <1>"}]}
    assert marks_of(row) == {"<0>", "<1>"}
