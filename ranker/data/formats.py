"""Row shapes to records: one function per shape, chosen by the columns a row has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ranker.data import fields
from ranker.errors import ConfigError, DataError, nearest
from ranker.records import Group, Message, Preference, Prompt, Spans

Row = Mapping[str, Any]
Columns = Mapping[str, str]
"""From the names used here (prompt, chosen, rejected, candidates, scores, ...) to those of the file."""

PROMPTS: Final = ("prompt", "instruction", "input", "query", "question")
CANDIDATES: Final = ("candidates", "responses", "generations", "completions", "answers")
KNOWN: Final = (
    "prompt", "candidates", "scores", "chosen", "rejected", "label", "margin", "response", "score", "accept",
    "messages", "id", "subset", "kinds", "spans", "chosen_spans", "rejected_spans", "reference",
)  # fmt: skip
"""Names that ``columns`` may map."""

LABELS: Final = ("scores", "score", "label", "accept")
SINGLE: Final = ("response", "completion", "answer", "output")


def group_of(row: Row, where: str, columns: Columns | None = None) -> Group:
    """The prompt and candidates of an unlabelled row.

    Looked for in this order: ``prompt`` (or instruction, input, query, question) with a list of candidates
    (candidates, responses, generations, completions, answers); ``chosen`` and ``rejected``; one response (response,
    completion, answer, output); ``messages`` ending in an assistant turn.

    Raises:
        DataError: no known shape, or a field of the wrong type.
    """
    row = _renamed(row, columns, where)
    if "chosen" in row and "rejected" in row and not any(name in row for name in CANDIDATES):
        prompt, chosen, rejected = _pair_texts(row, where)
        return Group(prompt, (chosen, rejected))
    for name in CANDIDATES:
        if name in row:
            return Group(_prompt(row, where), tuple(fields.answers(row[name], where, name)))
    for name in SINGLE:
        if name in row and any(prompt in row for prompt in PROMPTS if prompt != name):
            return Group(_prompt(row, where), (fields.answer(row[name], where, name),))
    for name in ("messages", "conversation"):
        if name in row:
            prompt, answer = fields.split_last(fields.messages(row[name], where, name), where, name)
            return Group(prompt, (answer,))
    raise DataError(
        where,
        "columns",
        "expected prompt and candidates, chosen and rejected, a response, or messages; "
        f"got {', '.join(row) or 'nothing'}; name them with --column prompt=COLUMN, candidates=COLUMN",
    )


def preference_of(row: Row, where: str, columns: Columns | None = None) -> Preference:
    """The labelled record of a training row.

    Shapes: pairs ``[prompt,] chosen, rejected [, label, margin]`` with strings or chat messages; lists ``prompt,
    candidates, scores``; LLM-Blender's ``instruction, input, candidates: [{text, scores: {metric: value}}]``.
    Single answers: ``prompt, response`` with ``score``, ``label`` or ``accept`` (a number, true or false), or ``scores:
    {aspect: value}``. ``id``, ``subset`` (or ``family``, ``source``) and ``kinds`` are kept. Token spans: a pair's
    ``chosen_spans`` and ``rejected_spans``, a list's ``spans`` (one list per candidate), each ``[[start, end], ...]``
    in characters of the answer.

    Raises:
        DataError: no known shape, or a field of the wrong type or range.
    """
    row = _renamed(row, columns, where)
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
        f"got {', '.join(row) or 'nothing'}; name them with --column chosen=COLUMN, in training with "
        "data.columns.chosen=COLUMN",
    )


def _pair(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    prompt, chosen, rejected = _pair_texts(row, where)
    label = 1.0 if row.get("label") is None else fields.number(row["label"], where, "label")
    if not 0.0 <= label <= 1.0:
        raise DataError(where, "label", f"expected a probability in [0, 1] that 'chosen' is better, got {label}")
    margin = None if row.get("margin") is None else fields.number(row["margin"], where, "margin")
    spans = _spans({name: row.get(name) for name in ("chosen_spans", "rejected_spans")}, (chosen, rejected), where)
    return Preference(prompt, (chosen, rejected), ((1.0,), (0.0,)), label=label, margin=margin, spans=spans, **facts)


def _list(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    group = group_of(row, where)
    count = len(group.candidates)
    by_task = row["scores"] if isinstance(row["scores"], Mapping) else {"": row["scores"]}
    tasks = sorted(by_task)
    columns = [fields.scores(by_task[task], where, f"scores.{task}".rstrip("."), count) for task in tasks]
    kinds = fields.texts(fields.many(row["kinds"], where, "kinds", count), where, "kinds") if row.get("kinds") else []
    table = tuple(zip(*columns, strict=True))
    names = () if tasks == [""] else tuple(tasks)
    given = fields.many(row["spans"], where, "spans", count) if row.get("spans") else ()
    spans = _spans({f"spans[{i}]": value for i, value in enumerate(given)}, group.candidates, where)
    return Preference(group.prompt, group.candidates, table, kinds=tuple(kinds), tasks=names, spans=spans, **facts)


def _spans(given: Mapping[str, Any], answers: Sequence[str], where: str) -> tuple[Spans, ...]:
    """The spans of each answer; none at all where no column has any."""
    if all(value is None for value in given.values()):
        return ()
    parts = zip(given.items(), answers, strict=True)
    found = tuple(fields.spans(value, where, name, answer) for (name, value), answer in parts)
    if not any(found):
        raise DataError(
            where, ", ".join(given), "expected a span in at least one answer; leave them out to compare whole answers"
        )
    return found


def _single(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    group = group_of(row, where)
    if len(group.candidates) != 1:
        raise DataError(where, "response", f"expected one response, got {len(group.candidates)}")
    name = next(name for name in LABELS if name in row)
    by_task = row[name] if isinstance(row[name], Mapping) else {"": row[name]}
    tasks = sorted(by_task)
    values = [float(by_task[t]) if isinstance(by_task[t], bool) else by_task[t] for t in tasks]
    table = (tuple(fields.score(value, where, name) for value in values),)
    return Preference(group.prompt, group.candidates, table, tasks=() if tasks == [""] else tuple(tasks), **facts)


def _blender(row: Row, where: str, facts: dict[str, Any]) -> Preference:
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


def _pair_texts(row: Row, where: str) -> tuple[Prompt, str, str]:
    chosen, rejected = row["chosen"], row["rejected"]
    has_prompt = any(row.get(name) is not None for name in PROMPTS)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _prompt(row, where), chosen, rejected
    turns = [fields.messages(side, where, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    (context, left), (other, right) = (fields.split_last(side, where, "chosen/rejected") for side in turns)
    if context != other:
        raise DataError(where, "rejected", "expected the same turns before the last answer as in 'chosen'")
    if not has_prompt:
        return context, left, right
    given = _prompt(row, where)
    before = (Message("user", given),) if isinstance(given, str) else given
    if context and not all(message in context for message in before):
        raise DataError(
            where, "prompt", "expected the turns of 'prompt' to be part of 'chosen', or 'chosen' to be answers alone"
        )
    return context or before, left, right


def _prompt(row: Row, where: str) -> Prompt:
    for name in PROMPTS:
        value = row.get(name)
        if value is None:
            continue
        if name == "instruction" and isinstance(value, str) and isinstance(row.get("input"), str):
            # LLM-Blender joins the two without a separator; everyone else writes them apart.
            return f"{value}{row['input']}" if _is_blender(row) else "\n".join(filter(None, (value, row["input"])))
        return value if isinstance(value, str) else fields.messages(value, where, name)
    if "chosen" in row:
        return ""
    raise DataError(where, "prompt", f"expected one of {', '.join(PROMPTS)}, got {', '.join(row)}")


def _is_blender(row: Row) -> bool:
    candidates = row.get("candidates")
    return (
        isinstance(candidates, list)
        and bool(candidates)
        and isinstance(candidates[0], Mapping)
        and "text" in candidates[0]
    )


def check_columns(columns: Columns) -> Columns:
    """Refuse names that no shape knows.

    Raises:
        ConfigError: naming the unknown one and the nearest known one.
    """
    for name in columns:
        if name not in KNOWN:
            raise ConfigError(f"unknown column name '{name}'{nearest(name, KNOWN)}")
    return columns


def _renamed(row: Row, columns: Columns | None, where: str) -> dict[str, Any]:
    if not columns:
        return dict(row)
    for name, column in columns.items():
        if column not in row:
            raise DataError(where, column, f"expected the column named for '{name}', got {', '.join(row)}")
    taken = set(columns.values()) | (set(PROMPTS) if "prompt" in columns else set())
    return {k: v for k, v in row.items() if k not in taken} | {name: row[column] for name, column in columns.items()}


def _first(row: Row, names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
