"""Row shapes to records: one function per shape, chosen by the columns a row has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from ranker.errors import ConfigError, DataError, nearest
from ranker.records import Group, Message, Preference, Prompt, Role

Row = Mapping[str, Any]
Columns = Mapping[str, str]
"""From the names used here (prompt, chosen, rejected, candidates, scores, ...) to those of the file."""

PROMPTS: Final = ("prompt", "instruction", "input", "query", "question")
CANDIDATES: Final = ("candidates", "responses", "generations", "completions", "answers")
KNOWN: Final = (
    "prompt", "candidates", "scores", "chosen", "rejected", "label", "margin", "response", "score", "accept",
    "messages", "id", "subset", "kinds",
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
            return Group(_prompt(row, where), tuple(_answers(row[name], where, name)))
    for name in SINGLE:
        if name in row and any(prompt in row for prompt in PROMPTS if prompt != name):
            return Group(_prompt(row, where), (_answer(row[name], where, name),))
    for name in ("messages", "conversation"):
        if name in row:
            prompt, answer = _split_last(_messages(row[name], where, name), where, name)
            return Group(prompt, (answer,))
    raise DataError(
        where,
        "columns",
        "expected prompt and candidates, chosen and rejected, a response, or messages; "
        f"got {', '.join(row) or 'nothing'}; name them with --column candidates=COLUMN",
    )


def preference_of(row: Row, where: str, columns: Columns | None = None) -> Preference:
    """The labelled record of a training row.

    Shapes: pairs ``[prompt,] chosen, rejected [, label, margin]`` with strings or chat messages; lists ``prompt,
    candidates, scores``; LLM-Blender's ``instruction, input, candidates: [{text, scores: {metric: value}}]``.
    Single answers: ``prompt, response`` with ``score``, ``label`` or ``accept`` (a number, true or false), or ``scores:
    {aspect: value}``. ``id``, ``subset`` (or ``family``, ``source``) and ``kinds`` are kept.

    Raises:
        DataError: no known shape, or a field of the wrong type or range.
    """
    row = _renamed(row, columns, where)
    facts: dict[str, Any] = {
        "id": str(row.get("id", where)),
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
        f"got {', '.join(row) or 'nothing'}; name them with data.columns.chosen=...",
    )


def _pair(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    prompt, chosen, rejected = _pair_texts(row, where)
    label = 1.0 if row.get("label") is None else _number(row["label"], where, "label")
    if not 0.0 <= label <= 1.0:
        raise DataError(where, "label", f"expected a probability in [0, 1] that 'chosen' is better, got {label}")
    margin = None if row.get("margin") is None else _number(row["margin"], where, "margin")
    return Preference(prompt, (chosen, rejected), ((1.0,), (0.0,)), label=label, margin=margin, **facts)


def _list(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    group = group_of(row, where)
    count = len(group.candidates)
    by_task = row["scores"] if isinstance(row["scores"], Mapping) else {"": row["scores"]}
    tasks = sorted(by_task)
    columns = [_scores(by_task[task], where, f"scores.{task}".rstrip("."), count) for task in tasks]
    kinds = _texts(row["kinds"], where, "kinds") if row.get("kinds") else []
    if kinds and len(kinds) != count:
        raise DataError(where, "kinds", f"expected one kind per candidate ({count}), got {len(kinds)}")
    table = tuple(zip(*columns, strict=True))
    names = () if tasks == [""] else tuple(tasks)
    return Preference(group.prompt, group.candidates, table, kinds=tuple(kinds), tasks=names, **facts)


def _single(row: Row, where: str, facts: dict[str, Any]) -> Preference:
    group = group_of(row, where)
    if len(group.candidates) != 1:
        raise DataError(where, "response", f"expected one response, got {len(group.candidates)}")
    name = next(name for name in LABELS if name in row)
    by_task = row[name] if isinstance(row[name], Mapping) else {"": row[name]}
    tasks = sorted(by_task)
    values = [float(by_task[t]) if isinstance(by_task[t], bool) else by_task[t] for t in tasks]
    table = (tuple(_score(value, where, name) for value in values),)
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
        texts.append(_text(candidate.get("text"), where, f"{name}.text"))
        table.append(tuple(_score(candidate["scores"].get(m), where, f"{name}.scores.{m}") for m in tasks))
    return Preference(_prompt(row, where), tuple(texts), tuple(table), tasks=tuple(tasks), **facts)


def _pair_texts(row: Row, where: str) -> tuple[Prompt, str, str]:
    chosen, rejected = row["chosen"], row["rejected"]
    has_prompt = any(row.get(name) is not None for name in PROMPTS)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _prompt(row, where), chosen, rejected
    turns = [_messages(side, where, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    (context, left), (other, right) = (_split_last(side, where, "chosen/rejected") for side in turns)
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
        return value if isinstance(value, str) else _messages(value, where, name)
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


def _messages(value: Any, where: str, name: str) -> tuple[Message, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected text or a list of messages, got {type(value).__name__}")
    turns = []
    for i, turn in enumerate(value):
        if not isinstance(turn, Mapping) or turn.get("role") not in get_args(Role):
            roles = ", ".join(get_args(Role))
            raise DataError(
                where, f"{name}[{i}]", f"expected a message with role ({roles}) and content, got {turn!r:.80}"
            )
        turns.append(Message(turn["role"], _text(turn.get("content"), where, f"{name}[{i}].content")))
    return tuple(turns)


def _split_last(turns: tuple[Message, ...], where: str, name: str) -> tuple[tuple[Message, ...], str]:
    if not turns or turns[-1].role != "assistant":
        raise DataError(where, name, "expected messages that end with an assistant turn")
    return turns[:-1], turns[-1].content


def _texts(value: Any, where: str, name: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of texts, got {type(value).__name__}")
    return [_text(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def _answers(value: Any, where: str, name: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of answers, got {type(value).__name__}")
    return [_answer(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def _answer(value: Any, where: str, name: str) -> str:
    """An answer as text, as LLM-Blender's ``{text}``, or as messages that end with the assistant."""
    if isinstance(value, Mapping) and "text" in value:
        return _text(value["text"], where, f"{name}.text")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _split_last(_messages(value, where, name), where, name)[1]
    return _text(value, where, name)


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise DataError(where, name, f"expected text, got {type(value).__name__} ({value!r:.60})")
    return value


def _scores(value: Any, where: str, name: str, count: int) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(where, name, f"expected a list of numbers, got {type(value).__name__}")
    if len(value) != count:
        raise DataError(where, name, f"expected one score per candidate ({count}), got {len(value)}")
    return [_score(item, where, f"{name}[{i}]") for i, item in enumerate(value)]


def _score(value: Any, where: str, name: str) -> float:
    return math.nan if value is None else _number(value, where, name)


def _number(value: Any, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(where, name, f"expected a finite number, got {value!r:.60}")
    return float(value)


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
