"""A row while it is read: its columns by the names used here, and which of them were not used."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from ranker.data.fields import MESSAGE_KEYS, is_empty
from ranker.errors import ConfigError, DataError, nearest

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Columns = Mapping[str, str]
"""From the names used here (prompt, chosen, rejected, candidates, scores, ...) to the columns of the file."""

KNOWN: Final = (
    "prompt",
    "system",
    "history",
    "candidates",
    "scores",
    "chosen",
    "rejected",
    "label",
    "margin",
    "response",
    "text",
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

NAME_THEM: Final = (
    "name each with columns={{'{0}': '{1}'}}, on the command line --column {0}={1}, in a run's settings "
    "data.columns.{0}={1}"
)
LIKE: Final = 0.75
"""How much of its letters and their order a column shares with the name that was probably meant."""

LABELS: Final = ("scores", "score", "label", "accept", "kto_tag")
"""Columns of the labels of answers; ``kto_tag`` is LLaMA-Factory's."""

FACTS: Final = ("id", "subset", "family", "kinds", "style", "margin", *LABELS)
"""Columns about a row, which the model does not read."""

LABEL_LENGTH: Final = 64
"""A column about a row holds a short text; a longer one may be something that the model should read."""

NAMED: Final = ("tools", "chat_template_kwargs", "image", "images", "audio", "audios", "video", "videos")
"""Columns that belong to the prompt and are no text, so that they are named whatever they hold."""

MESSAGE_PARTS: Final = frozenset({"role", "content", "type", *MESSAGE_KEYS})
SHAREGPT_PARTS: Final = frozenset({"from", "value", *MESSAGE_KEYS})
CANDIDATE_PARTS: Final = frozenset({"text", "scores"})
"""Keys of messages and of candidates that are read."""

DEEPEST: Final = 32


class ReadRow(dict[str, Any]):
    """A row that records which columns were read; ``replaced`` are columns whose names other columns got."""

    def __init__(self, columns: Row, replaced: Row | None = None) -> None:
        super().__init__(columns)
        self.read: set[str] = set()
        self.replaced = replaced or {}

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The column, or ``default``."""
        self.read.add(name)
        return super().get(name, default)

    def peek(self, name: str) -> Any:
        """The column or None; it does not count as read."""
        return super().get(name)

    def unused(self, known: Collection[str]) -> Iterator[str]:
        """Columns and keys with text that were neither read nor are in ``known``."""
        for name, value in self.items():
            if name in self.read:
                yield from (key for key in unread_keys(name, value) if key not in known)
            elif name not in known and _is_said(name, value):
                yield name
        for name, value in self.replaced.items():
            if name not in known and _is_said(name, value):
                yield name


def _is_said(name: str, value: Any) -> bool:
    if name in NAMED:
        return not is_empty(value)
    if name in FACTS and not (isinstance(value, str) and len(value) > LABEL_LENGTH):
        return False
    return has_text(value)


def unread_keys(name: str, value: Any) -> Iterator[str]:
    """Keys of the messages or candidates in a column that hold text and are not read: ``candidates[].model``."""
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, str):
                yield from unread_keys(f"{name}[]", item)
    elif isinstance(value, dict) and value.keys() & {"role", "from", "text"}:
        sharegpt = SHAREGPT_PARTS if "value" in value else SHAREGPT_PARTS | {"content"}
        parts = MESSAGE_PARTS if "role" in value else sharegpt if "from" in value else CANDIDATE_PARTS
        if not value.keys() <= parts:
            yield from (f"{name}.{key}" for key, inner in value.items() if key not in parts and has_text(inner))


def inner_keys(name: str, value: Any, known: Collection[str]) -> Iterator[str]:
    """Keys with text of the objects in a column that are not ``known``: ``completions[].model``."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from inner_keys(f"{name}[]", item, known)
    elif isinstance(value, dict):
        yield from (f"{name}.{key}" for key, inner in value.items() if key not in known and has_text(inner))


def how_named(row: Row, name: str, read: Collection[str], names: Collection[str] = ()) -> str:
    """How to say which column is ``name``, or the known name that a column of the row is nearly called.

    Args:
        row: without the column.
        name: what is missing.
        read: columns that are read beside ``KNOWN``.
        names: what a column may nearly be called; default: the known names of texts.
    """
    texts = list(names) or [known for known in KNOWN if known not in FACTS or known in LABELS]
    for column in row:
        is_read = column in KNOWN or column in read
        likely = [] if is_read else difflib.get_close_matches(column, texts, n=1, cutoff=LIKE)
        if likely:
            known = name if names else likely[0]
            return f"did you mean '{likely[0]}' by '{column}'? {NAME_THEM.format(known, column)}"
    return NAME_THEM.format(name, "COLUMN")


class UnusedColumns:
    """Collects columns of text that were not used, and reports each once per file.

    Args:
        used: columns that are read elsewhere.
    """

    def __init__(self, used: Collection[str] = ()) -> None:
        self._used = used
        self._new: dict[str, dict[str, None]] = {}
        self._reported: dict[str, set[str]] = {}

    def note(self, where: str, row: ReadRow) -> None:
        """Collect the unused columns of the row at ``where`` (``file:line``)."""
        source = where.rpartition(":")[0]
        reported, new = self._reported.setdefault(source, set()), self._new.setdefault(source, {})
        new.update(dict.fromkeys(row.unused({*reported, *new, *self._used})))

    @property
    def names(self) -> list[str]:
        """Columns that were collected and not logged yet, of all files."""
        return [name for names in self._new.values() for name in names]

    def say(self) -> None:
        """Log the columns that were not logged before, one line per file."""
        for source, names in self._new.items():
            if names:
                begin = f"{source}: " if source else ""
                logger.warning("%scolumns not used: %s", begin, listing(names))
                self._reported[source] |= set(names)
        self._new = {}


def listing(names: Collection[Any]) -> str:
    """Names of columns on one line: those of a file without a line of names may be whole rows."""
    shown = [_shown(str(name)) for name in list(names)[:40]]
    return ", ".join(shown) + (f" and {len(names) - 40} more" if len(names) > 40 else "")


def _shown(name: str) -> str:
    """A name on one line; one with spaces around it in quotes, because they are why it was not found."""
    line = f"{' '.join(name.split()):.60}"
    return line if name == name.strip() else f"'{name:.60}'".replace("\n", "\\n")


def has_text(value: Any, depth: int = 0) -> bool:
    """Whether a value is or holds text, or the bytes of something else."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, bytes) or depth > DEEPEST:
        return True
    if isinstance(value, Mapping):
        return any(has_text(inner, depth + 1) for inner in value.values())
    return isinstance(value, list | tuple) and any(has_text(inner, depth + 1) for inner in value)


def check_columns(columns: Columns) -> Columns:
    """Refuse unknown names.

    Raises:
        ConfigError: naming the unknown name and the nearest known one.
    """
    for name in columns:
        if name not in KNOWN:
            raise ConfigError(f"unknown column name '{name}'{nearest(name, KNOWN)}")
    return columns


def renamed(row: Row, columns: Columns, where: str, prompts: Collection[str]) -> ReadRow:
    """The row with its columns under the names used here; a column may be a path, ``completions.0.response``.

    Args:
        row: the columns of the file.
        columns: names of the columns, or paths in them.
        where: ``file:line``, for errors.
        prompts: names of prompts; if the prompt is named, no other column is used for it, not even for a null.

    Raises:
        DataError: there is no such column.
    """
    named = {name: column_at(row, column, where, name) for name, column in columns.items()}
    tops = {column.partition(".")[0] for column in columns.values() if column not in row}
    rest = {name: value for name, value in row.items() if name not in columns.values() and name not in tops}
    replaced = [name for name in rest if name in named or ("prompt" in named and name in prompts)]
    kept = {name: value for name, value in rest.items() if name not in replaced}
    paths = set(columns.values())
    in_part = {f"{top} (in part)": row[top] for top in sorted(tops) if _has_text_beside(row[top], top, paths)}
    return ReadRow(kept | named, {name: rest[name] for name in replaced} | in_part)


def column_at(row: Row, column: str, where: str, name: str = "") -> Any:
    """A column, or what stands at a path: ``completions.0.response`` is the first completion's response.

    Raises:
        DataError: there is no such column, or nothing at the path.
    """
    if column in row:
        return row[column]
    value: Any = row
    steps = column.split(".")
    for number, step in enumerate(steps):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif step.isdigit() and isinstance(value, Sequence) and not isinstance(value, str) and int(step) < len(value):
            value = value[int(step)]
        else:
            begin = ".".join(steps[:number])
            got = listing(value) if isinstance(value, Mapping) else type(value).__name__
            place = f" in '{begin}'" if begin else ""
            raise DataError(
                where,
                column,
                f"expected the column named for '{name}', got {got or 'nothing'}{place}; names of columns hold for all "
                "files of a command or run",
            )
    return value


def _has_text_beside(value: Any, path: str, used: Collection[str]) -> bool:
    """Whether a value holds text outside the paths that are used."""
    if path in used or not any(other.startswith(f"{path}.") for other in used):
        return path not in used and has_text(value)
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return any(_has_text_beside(part, f"{path}.{key}", used) for key, part in inner)
