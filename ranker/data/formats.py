"""Row shapes to records: one function per shape, chosen by the columns a row has."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ranker.data import fields
from ranker.data.files import Cells
from ranker.data.read_row import (
    LABEL_LENGTH,
    LABELS,
    NAME_THEM,
    Columns,
    ReadRow,
    Row,
    UnusedColumns,
    column_at,
    how_named,
    listing,
    renamed,
)
from ranker.data.shapes import RowShape, shape_of
from ranker.errors import DataError
from ranker.records import Group, Message, Preference, Prompt, Spans, Turns

logger = logging.getLogger(__name__)

TEXTS: Final = ("prompt", "instruction", "input", "query", "question", "context", "history", "post")
CONVERSATIONS: Final = ("messages", "conversations", "conversation", "trajectory")
PROMPTS: Final = (*TEXTS, *CONVERSATIONS)
"""Columns that hold the prompt, as text or as messages; the first one in a row is used."""

SYSTEM: Final = ("system", "system_prompt")
"""Columns of a system message, which stands before the prompt."""

CANDIDATES: Final = ("candidates", "responses", "generations", "completions", "answers")
SIDES: Final = ("chosen", "rejected")
CHECKED: Final = ("prompt", "instruction", "input", "query", "question")
"""Columns that must agree with the turns of ``chosen`` and ``rejected`` where these hold the prompt."""

SINGLE: Final = ("response", "completion", "answer", "output")
PREDICTIONS: Final = ("prediction", "pred", "model_output", "model_answer", "model_response")
"""Columns of a model's answer in logs of evaluations, whose other answer is the right one."""

READ: Final = frozenset({*PROMPTS, *CANDIDATES, *SIDES, *SINGLE})

VERDICTS: Final = ("accept", "reject", "ignore")
"""What Prodigy's column ``answer`` says of a row."""

TEXT: Final = "text"
"""A column of whole texts without a prompt."""

SIDE_SCORES: Final = ("score_{}", "{}_score", "rating_{}", "{}_rating", "{}-rating", "{}_reward", "reward_{}")
"""Scores of ``chosen`` and of ``rejected``; equal ones make the pair a tie."""

SPELLED: Final = re.compile(
    r"""\s*\[?\s*\{(?=.*["'](role|from)["']\s*:)(?=.*["'](content|value)["']\s*:)"""
    r"""\s*["'](role|content|from|value)["']\s*:.*\}\s*\]?\s*""",
    re.DOTALL,
)
"""A text that is nothing but messages, as JSON, Python or numpy writes them."""


def parse_group(
    row: Row,
    where: str,
    columns: Columns | None = None,
    unused: UnusedColumns | None = None,
    shape: RowShape | None = None,
) -> Group:
    """The prompt and candidates of an unlabelled row.

    The first of these shapes is used: a known dataset's row, by its columns; a prompt (``PROMPTS``) with a list of
    candidates (candidates, responses, generations, completions, answers); ``chosen`` and ``rejected``; one response
    (response, completion, answer, output); messages (or conversation, conversations) that end with an assistant turn;
    a ``text`` without a prompt. A ``system`` message and the turns of ``history`` stand before the prompt.

    Args:
        row: the columns.
        where: ``file:line``, for errors.
        columns: names of the columns where they differ from the known ones, or paths: ``completions.0.response``.
        unused: collects the columns of text that were not read.
        shape: the shape of the known dataset whose rows these are; default: by the columns.

    Raises:
        DataError: no known shape, a field of the wrong type, or no prompt.
    """
    with _naming(columns):
        read = _read(row, where, columns, shape)
        group = _group(read, where)
    if unused is not None:
        unused.note(where, read)
    return group


def parse_rendered(
    row: Row,
    where: str,
    columns: Columns | None = None,
    unused: UnusedColumns | None = None,
    shape: RowShape | None = None,
) -> Group:
    """The texts of a row to which the chat template was applied: column ``text``, or a prompt and its candidates.

    Arguments and errors are those of ``parse_group``.
    """
    with _naming(columns):
        read = _read(row, where, columns, shape)
        if TEXT in read and not any(name in read for name in (*CANDIDATES, *SINGLE, "chosen")):
            group = Group("", (fields.text(read[TEXT], where, TEXT),))
        else:
            group = _group(read, where)
    if unused is not None:
        unused.note(where, read)
    return group


def parse_preference(
    row: Row,
    where: str,
    columns: Columns | None = None,
    unused: UnusedColumns | None = None,
    shape: RowShape | None = None,
) -> Preference:
    """The labelled record of a training row; arguments as in ``parse_group``.

    Shapes: a known dataset's row; pairs ``[prompt,] chosen, rejected [, label, margin]`` with strings or chat messages;
    lists ``prompt, candidates, scores``; LLM-Blender's ``instruction, input, candidates: [{text, scores: {metric:
    value}}]``. Single answers: ``prompt, response``, ``messages`` or ``text`` with ``score``, ``label`` or ``accept``
    (a number, true or false), or ``scores: {aspect: value}``. ``id``, ``subset`` (or ``family``, ``source``) and
    ``kinds`` are kept. Token spans: a pair's ``chosen_spans`` and ``rejected_spans``, a list's ``spans`` (one list per
    candidate), each ``[[start, end], ...]`` in characters of the answer.

    Raises:
        DataError: no known shape, a field of the wrong type or range, or no prompt.
    """
    with _naming(columns):
        read = _read(row, where, columns, shape)
        preference = _labelled(read, where)
    if unused is not None:
        unused.note(where, read)
    return preference


def _read(row: Row, where: str, columns: Columns | None, shape: RowShape | None) -> ReadRow:
    """The row in one of the shapes that this module reads."""
    if columns and shape is None:
        read = renamed(row, columns, where, PROMPTS)
        return ReadRow(_uncelled(read, where), read.replaced) if isinstance(row, Cells) else read
    if isinstance(row, Cells):
        row = _uncelled(row, where)
    shape = shape or shape_of(row)
    if shape is None:
        return ReadRow(row)
    adapted = shape.adapted(row, where)
    return ReadRow(adapted, shape.unread(row, adapted))


def _uncelled(row: Row, where: str) -> Row:
    """A row of a CSV file whose cells hold lists and messages where a text makes no sense there."""
    held = {name: _cell(value, where, name) if isinstance(value, str) else value for name, value in row.items()}
    lists = [name for name in SIDES if _is_list_of_texts(held.get(name))]
    return held if len(lists) != 1 else {**held, lists[0]: row[lists[0]]}  # an answer that is a list in JSON


def _cell(value: str, where: str, name: str) -> Any:
    """A cell of a CSV file: its text, or what it holds as JSON where a text makes no sense there.

    A text of an answer or prompt stays text, unless it is messages; lists of answers and scores are lists.

    Raises:
        DataError: a list of answers as Python writes it, or a prompt that is a list of texts.
    """
    text = value.strip()
    if name in (*SIDES, *CANDIDATES) and text.startswith("['") and text.endswith("']"):
        raise DataError(where, name, f"expected a list as JSON, got it as Python writes it ({text:.40})")
    if text[:1] not in ("[", "{"):
        return value
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return value
    if _spells_messages(held) or (name in fields.TURNS and name not in TEXTS):
        return held
    if name in ("prompt", "instruction") and _is_list_of_texts(held):
        raise DataError(where, name, f"expected a text or messages, got a list of texts ({text:.40}); name one turn")
    if name in SIDES:
        return held if _is_list_of_texts(held) and all(isinstance(item, str) for item in held) else value
    return value if name in (*TEXTS, *SINGLE, TEXT, *SYSTEM) and name != "history" else held


def _spells_messages(held: Any) -> bool:
    """Whether a value is messages with a role and a content each."""
    turns = held if isinstance(held, list) else [held]
    keys = ({"role", "content"}, {"from", "value"})
    return bool(turns) and all(isinstance(turn, dict) and any(pair <= turn.keys() for pair in keys) for turn in turns)


@contextmanager
def _naming(columns: Columns | None) -> Iterator[None]:
    """Name the user's column in an error of a column that was named."""
    try:
        yield
    except DataError as error:
        column = (columns or {}).get(re.split(r"[\[.]", error.field)[0])
        if column is None or column == error.field:
            raise
        raise DataError(error.where, error.field, f"{error.reason} (column '{column}')", error.raw) from error


def _has(row: ReadRow, name: str) -> bool:
    """Whether a row holds something in a column."""
    return row.peek(name) is not None


def _is_pair(row: ReadRow) -> bool:
    """Whether a row has two sides; where both are empty, another shape may hold the answers."""
    if not all(name in row for name in SIDES):
        return False
    if not all(fields.is_empty(row.peek(name)) for name in SIDES):
        return True
    return all(fields.is_empty(row.peek(name)) for name in (*CANDIDATES, *SINGLE, *CONVERSATIONS))


def _group(row: ReadRow, where: str) -> Group:
    if _is_pair(row) and not any(_has(row, name) for name in CANDIDATES):
        prompt, answers = _sides(row, where)
        return Group(prompt, answers)
    _refuse_steps(row, where)
    for name in CANDIDATES:
        if _has(row, name):
            return Group(*_prompt_and_answers(row, name, fields.listed(row[name]), where))
    return _one_answer(row, where)


def _one_answer(row: ReadRow, where: str) -> Group:
    """The group of a row with a single answer."""
    for name in SINGLE:
        if _has(row, name) and (any(prompt in row for prompt in TEXTS if prompt != name) or _is_open(row)):
            if name == "answer" and row.peek(name) in VERDICTS:
                raise DataError(
                    where, name, f"expected an answer, got a verdict; {NAME_THEM.format('response', 'COLUMN')}"
                )
            return Group(*_prompt_and_answer(row, name, where))
    for name in ("messages", "conversation", "conversations"):
        if _has(row, name):
            turns = fields.messages(row[name], where, name)
            _refuse_verdicts(turns, where, name)
            prompt, answer = fields.split_answer(turns, where, name)
            return Group(_with_system(row, prompt, where), (answer,))
    if _has(row, TEXT) and not any(_has(row, name) for name in PROMPTS):
        if any(not fields.is_empty(row.peek(name)) for name in SINGLE):
            raise _no_prompt(row, where)
        return Group(*_prompt_and_answer(row, TEXT, where))
    null = next((name for name in (*CANDIDATES, *SINGLE, *CONVERSATIONS[:3], TEXT) if name in row), None)
    if null is not None and not _has(row, null):
        raise DataError(where, null, "expected answers, as text or messages, got null")
    raise DataError(
        where,
        "columns",
        "expected prompt and candidates, chosen and rejected, a response, messages, or a text; "
        f"got {_names(row)}; {how_named(row, 'candidates', READ)}",
    )


def _labelled(row: ReadRow, where: str) -> Preference:
    facts: dict[str, Any] = {
        "id": where if row.peek("id") is None else str(row.peek("id")),
        "subset": _subset(row),
    }
    if _is_pair(row):
        return _pair(row, where, facts)
    if _is_blender(row):
        return _blender(row, where, facts)
    _refuse_steps(row, where)
    label = next((name for name in LABELS if not fields.is_empty(row.peek(name))), None)
    label = label or next((name for name in LABELS if name in row), None)
    if label == "scores" and any(_has(row, name) for name in CANDIDATES):
        return _list(row, where, facts)
    if label is not None and any(_has(row, name) for name in (*SINGLE, *CONVERSATIONS, TEXT)):
        return _single(row, label, where, facts)
    raise DataError(
        where,
        "columns",
        "expected chosen and rejected, candidates and scores, or a response and a score; "
        f"got {_names(row)}; {how_named(row, next((n for n in SIDES if n not in row), 'chosen'), READ)}",
    )


def _pair(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    prompt, answers = _sides(row, where)
    label = _pair_label(row, where)
    margin = None if fields.is_empty(row.peek("margin")) else fields.number(row["margin"], where, "margin")
    if len(answers) != 2:
        if label != 1.0 or margin is not None:
            raise DataError(where, "label", "expected no label and no margin where chosen or rejected are lists")
        count = len(row["chosen"])
        scores = tuple((float(i < count),) for i in range(len(answers)))
        return Preference(prompt, answers, scores, **facts)
    spans = _spans({name: row.get(name) for name in ("chosen_spans", "rejected_spans")}, answers, where)
    return Preference(prompt, answers, ((1.0,), (0.0,)), label=label, margin=margin, spans=spans, **facts)


def _pair_label(row: ReadRow, where: str) -> float:
    """The probability that ``chosen`` is better: the column ``label``, 0.5 of a tie, else 1."""
    if not fields.is_empty(row.peek("label")):
        label = fields.number(row["label"], where, "label")
        if not 0.0 < label <= 1.0:
            raise DataError(
                where,
                "label",
                f"expected a probability in (0, 1] that 'chosen' is better, got {label:g}; swap the answers if the "
                "other is better, or rename the column if it says something else",
            )
        return label
    if any(str(row.peek(name)).lower() in ("true", "1", "1.0") for name in ("tie", "is_tie")):
        return 0.5
    for pattern in SIDE_SCORES:
        names = [pattern.format(side) for side in SIDES]
        if all(not fields.is_empty(row.peek(name)) for name in names):
            chosen, rejected = (fields.number(row[name], where, name) for name in names)
            return 0.5 if chosen == rejected else 1.0
    return 1.0


def _list(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    group = _group(row, where)
    count = len(group.candidates)
    by_task = row["scores"] if isinstance(row["scores"], Mapping) else {"": row["scores"]}
    tasks = sorted(by_task, key=str)
    columns = [fields.scores(by_task[task], where, f"scores.{task}".rstrip("."), count) for task in tasks]
    kinds = fields.texts(fields.many(row["kinds"], where, "kinds", count), where, "kinds") if row.get("kinds") else []
    table = tuple(zip(*columns, strict=True))
    names = () if tasks == [""] else tuple(map(str, tasks))
    span_lists = fields.many(row["spans"], where, "spans", count) if row.get("spans") else ()
    spans = _spans({f"spans[{i}]": value for i, value in enumerate(span_lists)}, group.candidates, where)
    return Preference(group.prompt, group.candidates, table, kinds=tuple(kinds), tasks=names, spans=spans, **facts)


def _spans(columns: Mapping[str, Any], answers: Sequence[str], where: str) -> tuple[Spans, ...]:
    """The spans of each answer; empty where no column has spans."""
    if all(value is None for value in columns.values()):
        return ()
    parts = zip(columns.items(), answers, strict=True)
    spans = tuple(fields.spans(value, where, name, answer) for (name, value), answer in parts)
    if not any(spans):
        raise DataError(
            where, ", ".join(columns), "expected a span in at least one answer; leave them out to compare whole answers"
        )
    return spans


def _single(row: ReadRow, name: str, where: str, facts: dict[str, Any]) -> Preference:
    answers = [column for column in (*SINGLE, *PREDICTIONS) if not fields.is_empty(row.peek(column))]
    if len(answers) > 1:
        raise DataError(
            where,
            answers[0],
            f"expected one answer with a label, got {', '.join(answers)}; {NAME_THEM.format('response', 'COLUMN')}",
        )
    group = _one_answer(row, where)
    by_task = row[name] if isinstance(row[name], Mapping) else {"": row[name]}
    tasks = sorted(by_task, key=str)
    table = (tuple(fields.verdict(by_task[task], where, f"{name}.{task}".rstrip(".")) for task in tasks),)
    names = () if tasks == [""] else tuple(map(str, tasks))
    return Preference(group.prompt, group.candidates, table, tasks=names, **facts)


def _blender(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    candidates = row["candidates"]
    first = candidates[0].get("scores")
    tasks = sorted(first, key=str) if isinstance(first, Mapping) else []
    if not tasks:
        raise DataError(where, "candidates[0].scores", "expected at least one metric, got none")
    texts, table = [], []
    for i, candidate in enumerate(candidates):
        name = f"candidates[{i}]"
        if not isinstance(candidate, Mapping) or not isinstance(candidate.get("scores"), Mapping):
            raise DataError(where, name, "expected an object with text and scores")
        texts.append(fields.text(candidate.get("text"), where, f"{name}.text"))
        table.append(tuple(fields.score(candidate["scores"].get(m), where, f"{name}.scores.{m}") for m in tasks))
    return Preference(_prompt(row, where), tuple(texts), tuple(table), tasks=tuple(tasks), **facts)


def _sides(row: ReadRow, where: str) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt of a pair and its two answers; of lists of answers, those of ``chosen`` and then of ``rejected``."""
    sides = [row[name] for name in SIDES]
    for name, side in zip(SIDES, sides, strict=True):
        if side is None:
            raise DataError(where, name, "expected an answer, as text or messages, got null")
    lists = [_is_list_of_texts(side) for side in sides]
    if any(lists):
        names = [f"{name}[{i}]" for name, side in zip(SIDES, sides, strict=True) for i in range(len(_several(side)))]
        return _together(row, names, [answer for side in sides for answer in _several(side)], where)
    return _together(row, SIDES, sides, where)


def _is_list_of_texts(value: Any) -> bool:
    """Whether a value is answers, as of data sets with several rejected ones, not the messages of one answer."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return any(
        isinstance(item, str) or (isinstance(item, Mapping) and "text" in item and "role" not in item) for item in value
    )


def _several(value: Any) -> list[Any]:
    return list(value) if _is_list_of_texts(value) else [value]


def _prompt_and_answers(row: ReadRow, name: str, answers: Any, where: str) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt of a list of answers, which may be whole conversations, and the answers."""
    if not isinstance(answers, Sequence) or isinstance(answers, str):
        raise DataError(where, name, f"expected a list of answers, got {fields.kind(answers)}")
    return _together(row, [f"{name}[{i}]" for i in range(len(answers))], answers, where)


def _prompt_and_answer(row: ReadRow, name: str, where: str) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt and the one answer of a column, which may be a whole conversation."""
    if row[name] is None:
        raise DataError(where, name, "expected an answer, as text or messages, got null")
    return _together(row, [name], [row[name]], where, needs_prompt=name != TEXT)


def _together(
    row: ReadRow, names: Sequence[str], answers: Sequence[Any], where: str, *, needs_prompt: bool = True
) -> tuple[Prompt, tuple[str, ...]]:
    """Prompt and answers, where the answers may be transcripts or conversations, which hold their prompt.

    Raises:
        DataError: there is no prompt, the prompt is not the one of the conversations, or only some are conversations.
    """
    values: list[Any] = [
        [value] if isinstance(value, Mapping) and fields.is_messages(value) else value for value in answers
    ]
    if values and all(map(fields.is_transcript, values)) and _repeats_prompt(row, values[0]):
        values = [fields.transcript(value) for value in values]
    whole = [fields.is_conversation(value) for value in values]
    if any(whole) and not all(whole):
        name = names[whole.index(False)]
        raise DataError(where, name, f"expected a conversation with its prompt, as in '{names[whole.index(True)]}'")
    pair_of_messages = tuple(names) == SIDES and all(map(fields.is_messages, values))
    if not any(whole) and not pair_of_messages:
        for name, value in zip(names, values, strict=True):
            _refuse_spelled(value, where, name)
        prompt = _prompt(row, where) if needs_prompt else ""
        return prompt, tuple(fields.answer(value, where, name) for name, value in zip(names, values, strict=True))
    turns = [fields.messages(value, where, name) for name, value in zip(names, values, strict=True)]
    if len(turns) > 1:
        context, texts = fields.common_turns(turns, where, names)
    else:
        context, answer = fields.split_answer(turns[0], where, names[0])
        texts = (answer,)
    if any(whole):
        return _with_system(row, _prompt_of_turns(row, context, texts, where), where), texts
    prompt = _bare_prompt(row, where)
    before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return _with_system(row, (*before, *context), where), texts


def _as_list(value: Any) -> Any:
    """A lone message as a list of one; anything else as it is."""
    return [value] if not isinstance(value, str) and isinstance(value, Mapping) and fields.is_messages(value) else value


def _repeats_prompt(row: ReadRow, text: str) -> bool:
    """Whether a transcript holds the prompt of its row, or the row has no other."""
    prompt = next((value for name in PROMPTS if not fields.is_empty(value := row.peek(name))), None)
    if not isinstance(prompt, str):
        return prompt is None
    return fields.is_transcript(prompt) or fields.transcript(text)[0]["content"] == prompt.strip()


def _prompt_of_turns(
    row: ReadRow, context: tuple[Message, ...], answers: Sequence[str], where: str
) -> tuple[Message, ...]:
    """The prompt of conversations: the turns that all begin with, which a column of the prompt may repeat."""
    if all(fields.is_empty(row.peek(name)) for name in CHECKED):
        if not context and not all(isinstance(answer, Turns) for answer in answers):
            raise _no_prompt(row, where)
        return context  # conversations may differ from their first turn on; other columns may say anything
    prompt = _bare_prompt(row, where)
    before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    texts = {(message.role, message.content) for message in context}
    if not all((message.role, message.content) in texts for message in before):
        raise DataError(
            where,
            "prompt",
            "expected the turns of 'prompt' to be part of 'chosen', or 'chosen' to hold only the answer",
        )
    return context


def parse_reference(row: Row, where: str, columns: Columns | None = None) -> str:
    """The answer with which the others of a row are compared, in the column ``reference``.

    Raises:
        DataError: the row has no reference.
    """
    column = (columns or {}).get("reference", "reference")
    if column == "reference" and column not in row:
        raise DataError(where, column, f"expected a text or messages to compare with, got {_names(row)}")
    return fields.answer(column_at(row, column, where, "reference"), where, column)


def _no_prompt(row: Row, where: str) -> DataError:
    if "prompt" in row and row["prompt"] is None:
        return DataError(
            where, "prompt", 'expected text or messages, got null; if there is no prompt, give "prompt": ""'
        )
    return DataError(
        where,
        "prompt",
        f"found no prompt in the columns {_names(row)}; expected one of {', '.join(PROMPTS)}; "
        f'{how_named(row, "prompt", READ, PROMPTS)}; where answers have no prompt, add "prompt": ""',
    )


def _prompt(row: ReadRow, where: str) -> Prompt:
    """The prompt after its system message."""
    return _with_system(row, _bare_prompt(row, where), where)


def _bare_prompt(row: ReadRow, where: str) -> Prompt:
    """The prompt after the turns of ``history``."""
    for name in PROMPTS:
        value = row.get(name)
        if value is None:
            continue
        if name == "instruction" and isinstance(row.peek("input"), int | float):
            raise DataError(where, "input", f"expected text, got {fields.kind(row['input'])}")
        if name == "instruction" and isinstance(value, str) and isinstance(row.peek("input"), str):
            # LLM-Blender joins the two without a separator, other datasets with a line break.
            value = f"{value}{row['input']}" if _is_blender(row) else "\n".join(filter(None, (value, row["input"])))
        if isinstance(value, str):
            _refuse_spelled(value, where, name)
            turns = fields.transcript_prompt(value)
            prompt = value if turns is None else fields.messages(turns, where, name)
            return _with_history(row, prompt, name, where)
        messages = fields.messages(value, where, name)
        if name in CONVERSATIONS and messages and messages[-1].role == "assistant":
            raise DataError(
                where,
                name,
                "expected messages that wait for an answer, got messages that end with the assistant's; "
                "name the prompt with --column prompt=COLUMN, in training with data.columns.prompt=COLUMN",
            )
        return messages
    raise _no_prompt(row, where)


def _with_history(row: ReadRow, prompt: Prompt, name: str, where: str) -> Prompt:
    """The prompt after the turns of a column ``history``; a history that is text stays unused."""
    earlier = row.peek("history")
    if name == "history" or not isinstance(earlier, Sequence) or isinstance(earlier, str) or not earlier:
        return prompt
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return (*fields.messages(row["history"], where, "history"), *turns)


def _with_system(row: ReadRow, prompt: Prompt, where: str) -> Prompt:
    """The prompt after the system message of a column of its own.

    Raises:
        DataError: the messages have another system message.
    """
    name = next((name for name in SYSTEM if not fields.is_empty(row.peek(name))), None)
    if name is None:
        return prompt
    system = Message("system", fields.text(row[name], where, name))
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    other = next((message for message in turns if message.role == "system"), None)
    if other is not None and other.content != system.content:
        raise DataError(where, name, "expected the system message of the turns, which have another one")
    return turns if other is not None else (system, *turns)


STEPS: Final = (
    "expected whole answers, got the steps of one answer with a label each (a process reward row), which are not read "
    "here; give whole answers, with one label each as 'scores'"
)


def _refuse_steps(row: ReadRow, where: str) -> None:
    """Refuse rows of steps with a label each, whose steps would be read as answers to choose from."""
    steps, labels = (fields.listed(row.peek(name)) for name in ("completions", "labels"))
    if all(isinstance(value, Sequence) and not isinstance(value, str) for value in (steps, labels)):
        raise DataError(where, "labels", STEPS)


def _refuse_spelled(value: Any, where: str, name: str) -> None:
    """Refuse texts that spell messages: they would be read as one text with brackets and quotes."""
    if isinstance(value, str) and SPELLED.fullmatch(value):
        raise DataError(
            where,
            name,
            f"expected messages or a text, got messages spelled as a text ({value.strip():.40}); parse them",
        )


def _refuse_verdicts(turns: Sequence[Message], where: str, name: str) -> None:
    """Refuse conversations whose assistant says ``+`` or ``-`` of every step."""
    verdicts = {message.content for message in turns if message.role == "assistant"}
    if verdicts and verdicts <= {"+", "-"}:
        raise DataError(where, name, STEPS)


def _is_open(row: ReadRow) -> bool:
    """Whether a conversation of the row waits for an answer."""
    values = (row.peek(name) for name in CONVERSATIONS)
    turns = next(
        (value for value in values if isinstance(value, Sequence) and value and not isinstance(value, str)), None
    )
    last = turns[-1] if turns is not None else None
    return isinstance(last, Mapping) and last.get("role", last.get("from")) not in ("assistant", "gpt")


def _is_blender(row: ReadRow) -> bool:
    candidates = row.peek("candidates")
    return (
        isinstance(candidates, list)
        and bool(candidates)
        and isinstance(candidates[0], Mapping)
        and candidates[0].keys() >= {"text", "scores"}
    )


def _names(row: Row) -> str:
    """The columns of a row, for errors."""
    return listing(row) or "nothing"


def _subset(row: ReadRow) -> str:
    """The part of the data that a row belongs to; a long text is no name of one, and stays unread."""
    for name in ("subset", "family", "source"):
        value = row.peek(name)
        if value is not None and len(str(value)) <= LABEL_LENGTH:
            return str(row[name] or "")
    return ""
