"""Row shapes to records: one function per shape, chosen by the columns a row has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from ranker.data import fields
from ranker.errors import ConfigError, DataError, nearest
from ranker.records import Group, Message, Preference, Prompt, Spans, Turns

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Columns = Mapping[str, str]
"""From the names used here (prompt, chosen, rejected, candidates, scores, ...) to the columns of the file."""

TEXTS: Final = ("prompt", "instruction", "input", "query", "question", "context", "history", "post")
CONVERSATIONS: Final = ("messages", "conversations", "conversation", "trajectory")
PROMPTS: Final = (*TEXTS, *CONVERSATIONS)
"""Columns that hold the prompt, as text or as messages; the first one in a row is used."""

CANDIDATES: Final = ("candidates", "responses", "generations", "completions", "answers")
KNOWN: Final = (
    "prompt",
    "candidates",
    "scores",
    "chosen",
    "rejected",
    "label",
    "margin",
    "response",
    "score",
    "accept",
    "messages",
    "id",
    "subset",
    "kinds",
    "spans",
    "chosen_spans",
    "rejected_spans",
    "reference",
)
"""Names that ``columns`` may map."""

CHECKED: Final = ("prompt", "instruction", "input", "query", "question")
"""Columns that must agree with the turns of ``chosen`` and ``rejected`` where these hold the prompt."""

FACTS: Final = ("id", "subset", "family", "source", "kinds", "reference", "style")
"""Columns of text about a row that the model does not read."""

LABELS: Final = ("scores", "score", "label", "accept")
SINGLE: Final = ("response", "completion", "answer", "output")


class ReadRow(dict[str, Any]):
    """A row that records which columns were read; ``replaced`` are columns whose names other columns got."""

    def __init__(self, columns: Row, replaced: Row | None = None) -> None:
        super().__init__(columns)
        self.read: set[str] = set()
        self._replaced = replaced or {}

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The column, or ``default``."""
        self.read.add(name)
        return super().get(name, default)

    def unused(self, known: Collection[str]) -> list[str]:
        """Columns with text that were neither read nor are in ``known``."""
        left = {name: value for name, value in self.items() if name not in self.read and name not in FACTS}
        return [name for name, value in {**left, **self._replaced}.items() if name not in known and _has_text(value)]


class UnusedColumns:
    """Collects columns of text that were not used, and reports each once per file."""

    def __init__(self) -> None:
        self._new: dict[str, dict[str, None]] = {}
        self._reported: dict[str, set[str]] = {}

    def note(self, where: str, row: ReadRow) -> None:
        """Collect the unused columns of the row at ``where`` (``file:line``)."""
        source = where.rpartition(":")[0]
        reported, new = self._reported.setdefault(source, set()), self._new.setdefault(source, {})
        new.update(dict.fromkeys(row.unused({*reported, *new})))

    def say(self) -> None:
        """Log the columns that were not logged before, one line per file."""
        for source, names in self._new.items():
            if names:
                begin = f"{source}: " if source else ""
                logger.warning("%scolumns not used: %s", begin, ", ".join(names))
                self._reported[source] |= set(names)
        self._new = {}


def parse_group(row: Row, where: str, columns: Columns | None = None, unused: UnusedColumns | None = None) -> Group:
    """The prompt and candidates of an unlabelled row.

    The first of these shapes is used: a prompt (``PROMPTS``) with a list of candidates (candidates, responses,
    generations, completions, answers); ``chosen`` and ``rejected``; one response (response, completion, answer,
    output); messages (or conversation, conversations) that end with an assistant turn.

    Args:
        row: the columns.
        where: ``file:line``, for errors.
        columns: names of the columns where they differ from the known ones.
        unused: collects the columns of text that were not read.

    Raises:
        DataError: no known shape, a field of the wrong type, or no prompt.
    """
    read = _renamed(row, columns, where)
    group = _group(read, where)
    if unused is not None:
        unused.note(where, read)
    return group


def parse_rendered(row: Row, where: str, columns: Columns | None = None, unused: UnusedColumns | None = None) -> Group:
    """The texts of a row to which the chat template was applied: column ``text``, or a prompt and its candidates.

    Arguments and errors are those of ``parse_group``.
    """
    read = _renamed(row, columns, where)
    if "text" in read and not any(name in read for name in (*CANDIDATES, *SINGLE, "chosen")):
        group = Group("", (fields.text(read["text"], where, "text"),))
    else:
        group = _group(read, where)
    if unused is not None:
        unused.note(where, read)
    return group


def _group(row: ReadRow, where: str) -> Group:
    if "chosen" in row and "rejected" in row and not any(name in row for name in CANDIDATES):
        prompt, chosen, rejected = _pair_texts(row, where)
        return Group(prompt, (chosen, rejected))
    for name in CANDIDATES:
        if name in row:
            return Group(_prompt(row, where), tuple(fields.answers(row[name], where, name)))
    for name in SINGLE:
        if name in row and (any(prompt in row for prompt in TEXTS if prompt != name) or _is_open(row)):
            return Group(_prompt(row, where), (fields.answer(row[name], where, name),))
    for name in ("messages", "conversation", "conversations"):
        if name in row:
            prompt, answer = fields.split_last(fields.messages(row[name], where, name), where, name)
            return Group(prompt, (answer,))
    raise DataError(
        where,
        "columns",
        "expected prompt and candidates, chosen and rejected, a response, or messages; "
        f"got {', '.join(row) or 'nothing'}; name them with columns={{'prompt': COLUMN, 'candidates': COLUMN}}, on the "
        "command line --column prompt=COLUMN --column candidates=COLUMN",
    )


def parse_preference(
    row: Row, where: str, columns: Columns | None = None, unused: UnusedColumns | None = None
) -> Preference:
    """The labelled record of a training row; arguments as in ``parse_group``.

    Shapes: pairs ``[prompt,] chosen, rejected [, label, margin]`` with strings or chat messages; lists ``prompt,
    candidates, scores``; LLM-Blender's ``instruction, input, candidates: [{text, scores: {metric: value}}]``.
    Single answers: ``prompt, response`` with ``score``, ``label`` or ``accept`` (a number, true or false), or ``scores:
    {aspect: value}``. ``id``, ``subset`` (or ``family``, ``source``) and ``kinds`` are kept. Token spans: a pair's
    ``chosen_spans`` and ``rejected_spans``, a list's ``spans`` (one list per candidate), each ``[[start, end], ...]``
    in characters of the answer.

    Raises:
        DataError: no known shape, a field of the wrong type or range, or no prompt.
    """
    read = _renamed(row, columns, where)
    preference = _labelled(read, where)
    if unused is not None:
        unused.note(where, read)
    return preference


def _labelled(row: ReadRow, where: str) -> Preference:
    facts: dict[str, Any] = {
        "id": where if row.get("id") is None else str(row["id"]),
        "subset": str(_first(row, ("subset", "family", "source")) or ""),
    }
    if "chosen" in row and "rejected" in row:
        return _pair(row, where, facts)
    if _is_blender(row):
        return _blender(row, where, facts)
    if any(name in row for name in CANDIDATES) and "scores" in row:
        return _list(row, where, facts)
    if any(name in row for name in SINGLE) and any(name in row for name in LABELS):
        return _single(row, where, facts)
    raise DataError(
        where,
        "columns",
        "expected chosen and rejected, candidates and scores, or a response and a score; "
        f"got {', '.join(row) or 'nothing'}; name them with columns={{'chosen': COLUMN}}, on the command line "
        "--column chosen=COLUMN, in training data.columns.chosen=COLUMN",
    )


def _pair(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    prompt, chosen, rejected = _pair_texts(row, where)
    label = 1.0 if row.get("label") is None else fields.number(row["label"], where, "label")
    if not 0.0 <= label <= 1.0:
        raise DataError(where, "label", f"expected a probability in [0, 1] that 'chosen' is better, got {label}")
    margin = None if row.get("margin") is None else fields.number(row["margin"], where, "margin")
    spans = _spans({name: row.get(name) for name in ("chosen_spans", "rejected_spans")}, (chosen, rejected), where)
    return Preference(prompt, (chosen, rejected), ((1.0,), (0.0,)), label=label, margin=margin, spans=spans, **facts)


def _list(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    group = _group(row, where)
    count = len(group.candidates)
    by_task = row["scores"] if isinstance(row["scores"], Mapping) else {"": row["scores"]}
    tasks = sorted(by_task)
    columns = [fields.scores(by_task[task], where, f"scores.{task}".rstrip("."), count) for task in tasks]
    kinds = fields.texts(fields.many(row["kinds"], where, "kinds", count), where, "kinds") if row.get("kinds") else []
    table = tuple(zip(*columns, strict=True))
    names = () if tasks == [""] else tuple(tasks)
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


def _single(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    group = _group(row, where)
    if len(group.candidates) != 1:
        raise DataError(where, "response", f"expected one response, got {len(group.candidates)}")
    name = next(name for name in LABELS if name in row)
    by_task = row[name] if isinstance(row[name], Mapping) else {"": row[name]}
    tasks = sorted(by_task)
    values = [float(by_task[t]) if isinstance(by_task[t], bool) else by_task[t] for t in tasks]
    table = (tuple(fields.score(value, where, name) for value in values),)
    return Preference(group.prompt, group.candidates, table, tasks=() if tasks == [""] else tuple(tasks), **facts)


def _blender(row: ReadRow, where: str, facts: dict[str, Any]) -> Preference:
    candidates = row["candidates"]
    first = candidates[0].get("scores")
    tasks = sorted(first) if isinstance(first, Mapping) else []
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


def _pair_texts(row: ReadRow, where: str) -> tuple[Prompt, str, str]:
    chosen, rejected = ([side] if isinstance(side, Mapping) else side for side in (row["chosen"], row["rejected"]))
    has_prompt = any(dict.get(row, name) is not None for name in PROMPTS)  # does not count as reading
    if isinstance(chosen, str) and isinstance(rejected, str) and not has_prompt:
        chosen, rejected = _transcripts(row, chosen, rejected, where)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _prompt(row, where), chosen, rejected
    turns = [fields.messages(side, where, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    context, left, right = _common_turns(turns[0], turns[1], where)
    if context and all(dict.get(row, name) is None for name in CHECKED):
        return context, left, right  # the turns hold the prompt; other columns may say anything
    if not has_prompt:
        if isinstance(left, Turns) and isinstance(right, Turns):
            return (), left, right  # conversations that differ from their first turn on
        raise _no_prompt(row, where)
    prompt = _prompt(row, where)
    before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    if context and not all(message in context for message in before):
        raise DataError(
            where,
            "prompt",
            "expected the turns of 'prompt' to be part of 'chosen', or 'chosen' to hold only the answer",
        )
    return context or before, left, right


def _common_turns(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], where: str
) -> tuple[tuple[Message, ...], str, str]:
    """The turns that both conversations begin with, and the answers: what is left of either."""
    for side in (chosen, rejected):
        fields.split_last(side, where, "chosen/rejected")
    most = min(len(chosen), len(rejected)) - 1
    same = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    return chosen[:same], fields.answer_of(chosen[same:]), fields.answer_of(rejected[same:])


def _transcripts(row: Row, chosen: str, rejected: str, where: str) -> tuple[Any, Any]:
    """Both texts as messages, for transcripts (``Human: ...``), which hold their prompt.

    Raises:
        DataError: the texts are no transcripts, so the row has no prompt.
    """
    try:
        return fields.transcript(chosen), fields.transcript(rejected)
    except ValueError:
        raise _no_prompt(row, where) from None


def _no_prompt(row: Row, where: str) -> DataError:
    if "prompt" in row and row["prompt"] is None:
        return DataError(
            where, "prompt", 'expected text or messages, got null; if there is no prompt, give "prompt": ""'
        )
    return DataError(
        where,
        "prompt",
        f"found no prompt in the columns {', '.join(row)}; expected one of {', '.join(PROMPTS)}. Name the column with "
        "--column prompt=COLUMN, in training with data.columns.prompt=COLUMN; where answers have no prompt, add "
        '"prompt": ""',
    )


def _prompt(row: ReadRow, where: str) -> Prompt:
    for name in PROMPTS:
        value = row.get(name)
        if value is None:
            continue
        if name == "instruction" and isinstance(value, str) and isinstance(row.get("input"), str):
            # LLM-Blender joins the two without a separator, other datasets with a line break.
            return f"{value}{row['input']}" if _is_blender(row) else "\n".join(filter(None, (value, row["input"])))
        if isinstance(value, str):
            return value
        turns = fields.messages(value, where, name)
        if name in CONVERSATIONS and turns and turns[-1].role == "assistant":
            raise DataError(
                where,
                name,
                "expected messages that wait for an answer, got messages that end with the assistant's; "
                "name the prompt with --column prompt=COLUMN, in training with data.columns.prompt=COLUMN",
            )
        return turns
    raise _no_prompt(row, where)


def _is_open(row: Row) -> bool:
    """Whether a conversation of the row waits for an answer."""
    values = (row[name] for name in CONVERSATIONS if name in row)
    turns = next(
        (value for value in values if isinstance(value, Sequence) and value and not isinstance(value, str)), None
    )
    last = turns[-1] if turns is not None else None
    return isinstance(last, Mapping) and last.get("role", last.get("from")) not in ("assistant", "gpt")


def _has_text(value: Any) -> bool:
    """Whether a value is or holds text; of a list only the first entry is checked."""
    if isinstance(value, Mapping):
        return any(map(_has_text, value.values()))
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list | tuple) and len(value) > 0 and _has_text(value[0])


def _is_blender(row: Row) -> bool:
    candidates = row.get("candidates")
    return (
        isinstance(candidates, list)
        and bool(candidates)
        and isinstance(candidates[0], Mapping)
        and "text" in candidates[0]
    )


def check_columns(columns: Columns) -> Columns:
    """Refuse unknown names.

    Raises:
        ConfigError: naming the unknown name and the nearest known one.
    """
    for name in columns:
        if name not in KNOWN:
            raise ConfigError(f"unknown column name '{name}'{nearest(name, KNOWN)}")
    return columns


def _renamed(row: Row, columns: Columns | None, where: str) -> ReadRow:
    if not columns:
        return ReadRow(row)
    for name, column in columns.items():
        if column not in row:
            raise DataError(where, column, f"expected the column named for '{name}', got {', '.join(row)}")
    named = {name: row[column] for name, column in columns.items()}
    rest = {name: value for name, value in row.items() if name not in columns.values()}
    # If the prompt is named, no other column is used for it, not even for a null.
    replaced = [name for name in rest if name in named or ("prompt" in named and name in PROMPTS)]
    kept = {name: value for name, value in rest.items() if name not in replaced}
    return ReadRow(kept | named, {name: rest[name] for name in replaced})


def _first(row: Row, names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
