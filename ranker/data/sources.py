"""What users name as rows: a file, a folder or pattern of files, a saved dataset, or ``NAME=FILE`` of a known one."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from ranker.data.files import Row, missing, remote
from ranker.data.known_datasets import HUB, HubDataset, oasst_lists
from ranker.data.read_row import Columns
from ranker.data.readers import COMPRESSED, ENDINGS, NamedRow, Rows, read_rows, row_count
from ranker.data.shapes import OASST, RowShape
from ranker.errors import ConfigError, DataError, MissingExtraError, nearest
from ranker.extras import require
from ranker.records import BadRow

NAMED: Final = re.compile(r"([A-Za-z][\w.-]*)=(.+)", re.DOTALL)
SPLITS: Final = re.compile(r"(?i)(?:^|[-_./])(train|test|validation|valid|val|dev|eval)(?=[-_.]|$)")
"""Parts of file names that say which split a file is of."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows as a user names them.

    Attributes:
        path: a file, folder or pattern, or ``-`` for standard input.
        dataset: the known dataset whose rows these are, by its name in ``HUB``; empty where the columns say it.
    """

    path: str
    dataset: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """The source that a text names: ``PATH``, or ``NAME=PATH``.

        Raises:
            ConfigError: an unknown name before ``=``.
        """
        named = NAMED.fullmatch(text)
        if named is None or os.path.exists(text):
            return cls(text)
        name, path = named.groups()
        if name not in HUB:
            raise ConfigError(f"'{text}': expected a file, or NAME=FILE of a known dataset{nearest(name, HUB)}")
        return cls(path, name)

    @property
    def known(self) -> HubDataset | None:
        """The dataset that was named."""
        return HUB[self.dataset] if self.dataset else None

    @property
    def shape(self) -> RowShape | None:
        """The shape of its rows, where the dataset was named and its rows are not joined."""
        return None if self.known is None or self.known.gather is not None else self.known.shape

    def files(self) -> list[str]:
        """The files, sorted.

        Raises:
            DataError: no file was found, or the files are of several splits.
        """
        return ["-"] if self.path == "-" else files_of(self.path)

    def check(self, columns: Columns | None) -> None:
        """Refuse what can be refused before a row is read.

        Raises:
            DataError: no file, or one that does not exist.
            ConfigError: names of columns for a dataset whose columns are known.
        """
        if columns and self.shape is not None:
            text = f"{self.dataset}={self.path}"
            raise ConfigError(f"'{text}' says what its columns mean; give the file without its name, or no columns")
        for file in self.files():
            if file != "-" and not remote(file) and not os.path.isfile(file):
                raise missing(file)

    def count(self) -> int | None:
        """About how many rows the files have, for progress; None where only reading them says it."""
        counts = [row_count(file) for file in self.files()]
        return None if None in counts else sum(count for count in counts if count is not None)

    def rows(self) -> Rows:
        """The rows of all files as (``file:line``, row).

        Raises:
            DataError: a file that is missing or damaged.
        """
        yield from joined(chain.from_iterable(map(read_rows, self.files())), self.path)


def joined(rows: Rows, path: str) -> Rows:
    """The rows, with OASST's messages joined into prompts with their ranked answers; other rows as they are."""
    begin: list[NamedRow] = []
    for where, row in rows:
        begin.append((where, row))
        if not isinstance(row, BadRow):
            break
    if begin and not isinstance(begin[-1][1], BadRow) and OASST.matches(begin[-1][1]):
        yield from _gathered(chain(begin, rows), path)
        return
    yield from begin
    yield from rows


def _gathered(rows: Iterator[NamedRow], path: str) -> Rows:
    messages: list[Mapping[str, Any]] = []
    for where, row in rows:
        if isinstance(row, BadRow) or not OASST.matches(row):
            yield where, row if isinstance(row, BadRow) else BadRow(where, "row", "expected a message of OASST")
        else:
            messages.append(row)
    number = 0
    try:
        for number, row in enumerate(oasst_lists(messages), 1):
            yield f"{path}:{number}", row
        if not number:
            raise ValueError("found no prompt with two ranked replies")
    except (ValueError, TypeError) as error:
        raise DataError(path, "message_id", f"expected message trees as OASST has them ({error})") from error


def is_file_like(text: str) -> bool:
    """Whether a text names files here, not a dataset of the hub."""
    path = text.partition("=")[2] if NAMED.fullmatch(text) else text
    return (
        path == "-"
        or remote(path)
        or glob.has_magic(path)
        or Path(path).suffix.lower() in (*ENDINGS, *COMPRESSED)
        or os.path.exists(path)
    )


def files_of(path: str) -> list[str]:
    """The files of a name, folder or pattern: each once, those of a folder or pattern sorted.

    Raises:
        DataError: no file, files of several splits in one folder, or a saved dataset of several splits.
    """
    if glob.has_magic(path) and not os.path.exists(path):
        names = [name for name in _matching(path) if remote(name) or os.path.isfile(name)]
        if not names:
            raise DataError(path, "file", "expected at least one file of this pattern, found none")
        return names
    if remote(path) or not os.path.isdir(path):
        return [path]
    folder = Path(path)
    if (folder / "dataset_dict.json").is_file():
        splits = _written(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            raise DataError(path, "file", f"expected one split, got {', '.join(splits)}; name one: {path}/{splits[0]}")
        folder /= splits[0]
    if (folder / "state.json").is_file():
        return _saved(folder)
    return _shards(folder)


def _saved(folder: Path) -> list[str]:
    """The files of a folder that ``Dataset.save_to_disk`` wrote."""
    return [str(folder / file["filename"]) for file in _written(folder / "state.json", "_data_files", "filename")]


def _written(file: Path, key: str, inner: str = "") -> list[Any]:
    """A list in a file that ``save_to_disk`` wrote, of objects that have ``inner``.

    Raises:
        DataError: the file is damaged.
    """
    try:
        values = list(json.loads(file.read_text(encoding="utf-8"))[key])
        if inner and not all(inner in value for value in values):
            raise KeyError(inner)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(str(file), key, f"expected what save_to_disk writes ({error!r})") from error
    return values


def _shards(folder: Path) -> list[str]:
    """All files of rows in a folder and its folders."""
    names = [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(ENDINGS)
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and path.name not in ("dataset_info.json", "dataset_infos.json")
    ]
    if not names:
        raise DataError(str(folder), "file", f"expected files that end in {', '.join(ENDINGS)}, found none")
    splits = {_split_of(os.path.relpath(name, folder)) for name in names}
    if len(splits) > 1:
        names_of_splits = ", ".join(sorted(split or "none" for split in splits))
        raise DataError(
            str(folder),
            "file",
            f"expected files of one split, got files of {names_of_splits}; name some: '{folder}/train*'",
        )
    return names


def _split_of(name: str) -> str:
    match = SPLITS.search(name)
    return "" if match is None else match[1].lower()


def _matching(pattern: str) -> list[str]:
    if not remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    try:
        filesystem, path = require("fsspec.core").url_to_fs(pattern)
    except ImportError as error:
        raise MissingExtraError(f"{pattern}: {error} (pip install it)") from error
    return [str(filesystem.unstrip_protocol(name)) for name in sorted(filesystem.glob(path))]


def joined_dataset(source: Source) -> str:
    """The name of the dataset whose messages ``Source.rows`` joins; empty where rows come as they are."""
    row = first_row(source)
    return "oasst2" if row is not None and OASST.matches(row) else ""


def first_row(source: Source) -> Row | None:
    """The first row of a source that can be read; None without one."""
    rows = chain.from_iterable(map(read_rows, source.files()))
    return next((row for _, row in rows if not isinstance(row, BadRow)), None)


def known_datasets(texts: Sequence[str]) -> dict[str, HubDataset]:
    """The known datasets among sources, by what the user wrote: named ones, and files whose columns say so."""
    known: dict[str, HubDataset] = {}
    for text in texts:
        name = text.partition(":")[0]
        if not is_file_like(text):
            if name in HUB:
                known[text] = HUB[name]
            continue
        source = Source.parse(text)
        dataset = source.known
        if dataset is None and source.path != "-":
            with suppress(DataError):  # a file that is gone since it was read
                row = first_row(source)
                dataset = None if row is None else _dataset_of(row)
        if dataset is not None:
            known[text] = dataset
    return known


def _dataset_of(row: Row) -> HubDataset | None:
    return next((dataset for dataset in HUB.values() if dataset.shape.matches(row)), None)
