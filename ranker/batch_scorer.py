"""One callable for every pipeline: columns in, the same rows in the same order out, with scores beside them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.data.files import Cells
from ranker.data.formats import parse_group
from ranker.data.read_row import Columns, UnusedColumns, check_columns
from ranker.data.shapes import RowShape
from ranker.data.tables import plain
from ranker.errors import ConfigError, DataError, ModelFileError, nearest
from ranker.extras import require
from ranker.loading import LOAD_OPTIONS, load
from ranker.metrics import top_margin
from ranker.ranking.ranks import rank_scores
from ranker.ranking.tournament import ranked
from ranker.records import BadRow, Group
from ranker.runtime import manifest as manifests
from ranker.runtime.fastest import resolved
from ranker.scoring.protocol import GroupScores, Scorer, failed, warn_of_lone

RESULTS: Final = ("scores", "ranks", "order", "margin", "truncated", "prompt_truncated", "special_text", "error")
"""Columns that are added, after the prefix."""

END: Final = 1 << 20
"""Bytes at each end of a file that its model's identity knows."""


class RowReader:
    """Reads rows whose columns have these names, and names the columns that are added to them.

    Args:
        columns: names of the columns where they differ from the known ones (``ranker.data.formats``).
        prefix: of the columns that are added.

    Raises:
        ConfigError: an unknown column name.
    """

    def __init__(self, columns: Columns | None = None, prefix: str = "ranker_") -> None:
        self.columns = dict(check_columns(columns or {}))
        self.prefix = prefix
        self._unused = UnusedColumns()

    def group(self, row: Mapping[str, Any], where: str, shape: RowShape | None = None) -> Group | BadRow:
        """What is scored of a row, or why there is nothing; ``shape`` is that of a known dataset that was named."""
        try:
            values = row if isinstance(row, Cells) else plain(row)
            return parse_group(values, where, self.columns, self._unused, shape)
        except DataError as error:
            return BadRow.of(error)


class BatchScorer(RowReader):
    """Scores batches of rows; holds settings only, so that it can be sent to other processes and hashed for caches.

    The model is loaded when the first batch comes. Rows may have different numbers of candidates; a row that cannot be
    scored gets nulls and the reason in its ``error`` column. Input columns are never written to. A score does not
    depend on what else is in the batch.

    Args:
        model: what ``ranker.load`` reads.
        columns: names of the columns where they differ from the known ones (``ranker.data.formats``).
        prefix: of the columns that are added: ``scores`` (list of fp32 logits), ``ranks`` (1 = best), ``order``
            (indices, best first), ``margin`` (logits of the best above the next, null with fewer than two),
            ``truncated`` (list: whether an answer was cut), ``prompt_truncated`` (whether the prompt lost its oldest
            part), ``special_text`` (whether a text spells a special token, which was read as characters), ``error``.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an unknown column name, or a prefix that is empty.
        ModelFileError: ``model`` is a ``model.onnx`` that does not exist or is no model.
    """

    def __init__(
        self, model: str | Path, *, columns: Columns | None = None, prefix: str = "ranker_", **options: Any
    ) -> None:
        if not prefix:
            raise ConfigError("expected a prefix for the columns that are added, got none; for example ranker_")
        for name in options:
            if name not in LOAD_OPTIONS:
                raise ConfigError(
                    f"unknown option '{name}'; options are those of ranker.load{nearest(name, LOAD_OPTIONS)}"
                )
        super().__init__(columns, prefix)
        model, options = resolved(model, options)  # once, so that every process reads the same file
        self.model = str(model)
        self.options = options
        self.digest = identity(self.model)
        self._scorer: Scorer | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.model, self.columns, self.prefix, self.options, self.digest)

    @property
    def scorer(self) -> Scorer:
        """The model, loaded when it is first asked for.

        Raises:
            ModelFileError: the file is no longer the one that this was made with.
        """
        with self._lock:
            if self._scorer is None:
                if self.digest != identity(self.model):
                    raise ModelFileError(f"{self.model}: changed since this scorer was made; make it again")
                self._scorer = load(self.model, **self.options).scorer
            return self._scorer

    def features(self, dataset: Any) -> Any:
        """The features of a ``datasets.Dataset`` with the columns that are added: ``dataset.map(..., features=...)``.

        Without them ``datasets`` takes the types of the added columns from the first rows, where ``error`` is null.

        Example:
            >>> from datasets import Dataset
            >>> rows = Dataset.from_list([{"prompt": "Say hi", "candidates": ["Hi!", "No."]}])
            >>> scorer = ranker.BatchScorer("model.onnx")
            >>> rows.map(scorer, batched=True, features=scorer.features(rows)).column_names[-1]
            'ranker_error'
        """
        library = require("datasets")
        many = getattr(library, "List", library.Sequence)
        types = {
            "scores": many(library.Value("float64")),
            "ranks": many(library.Value("int64")),
            "order": many(library.Value("int64")),
            "margin": library.Value("float64"),
            "truncated": many(library.Value("bool")),
            "prompt_truncated": library.Value("bool"),
            "special_text": library.Value("bool"),
            "error": library.Value("string"),
        }
        return library.Features({**dataset.features, **{self.prefix + name: types[name] for name in RESULTS}})

    def __call__(self, batch: Any) -> Any:
        """The batch's columns as lists, and those of ``RESULTS`` with the prefix; of an Arrow table, such a table.

        Errors name the row of the batch, and its ``id`` where it has one.

        Args:
            batch: a mapping from columns to their values, or a ``pyarrow.Table``.

        Raises:
            ConfigError: columns of different lengths, or one that has the name of a result.
        """
        if hasattr(batch, "append_column"):
            return self._table(batch)
        columns = {name: _list(values) for name, values in batch.items()}
        return columns | self._results(columns)

    def _table(self, table: Any) -> Any:
        arrow = require("pyarrow")
        types = {self.prefix + name: kind for name, kind in arrow_types().items()}
        results = self._results({name: table.column(name).to_pylist() for name in table.column_names})
        for name, values in results.items():
            table = table.append_column(name, arrow.array(values, types[name]))
        return table

    def _results(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns that are added."""
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise ConfigError(f"expected columns of one length, got {', '.join(map(str, sorted(lengths)))}")
        clashes = [self.prefix + name for name in RESULTS if self.prefix + name in columns]
        if clashes:
            raise ConfigError(
                f"the batch has a column '{clashes[0]}' already; choose another prefix than '{self.prefix}'"
            )
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        groups = [self.group(row, _place(number, row)) for number, row in enumerate(rows)]
        added = [self.results(result) for result in self.score(groups)]
        return {self.prefix + name: [row[self.prefix + name] for row in added] for name in RESULTS}

    def score(self, groups: Sequence[Group | BadRow]) -> list[GroupScores]:
        """One result per group, in order; a row that could not be read has its error."""
        self._unused.say()
        good = [group for group in groups if isinstance(group, Group)]
        warn_of_lone(self.scorer, good)
        scored = iter(ranked(self.scorer, good))
        return [next(scored) if isinstance(group, Group) else failed(Group("", ()), str(group)) for group in groups]

    def results(self, result: GroupScores) -> dict[str, Any]:
        """The columns that are added to a row, with the prefix."""
        return {self.prefix + name: value for name, value in columns_of(result).items()}


def arrow_types() -> dict[str, Any]:
    """The Arrow types of ``RESULTS``."""
    arrow = require("pyarrow")
    return {
        "scores": arrow.list_(arrow.float32()),
        "ranks": arrow.list_(arrow.int32()),
        "order": arrow.list_(arrow.int32()),
        "margin": arrow.float32(),
        "truncated": arrow.list_(arrow.bool_()),
        "prompt_truncated": arrow.bool_(),
        "special_text": arrow.bool_(),
        "error": arrow.string(),
    }


def identity(model: str) -> str:
    """What decides a model's scores, as one hash: of a model.onnx graph, layout and tokenizer, of a folder its files.

    Files of more than 2 MiB count by their size and both ends. A name on the model hub has none.

    Raises:
        ModelFileError: a model.onnx that is missing, damaged or foreign.
    """
    digest = hashlib.sha256()
    path = Path(model)
    if model.endswith(".onnx"):
        manifest, _ = manifests.read(path)
        digest.update(f"{manifest.graph_sha256} {manifest.tokenizer_sha256} {manifest.text.model_dump_json()}".encode())
    elif path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            size = file.stat().st_size
            with file.open("rb") as stream:
                ends = stream.read(END)
                stream.seek(max(len(ends), size - END))
                ends += stream.read(END)
            digest.update(f"{file.relative_to(path)} {size} ".encode() + ends)
    else:
        return ""
    return digest.hexdigest()


def _restored(model: str, columns: dict[str, str], prefix: str, options: dict[str, Any], digest: str) -> BatchScorer:
    scorer = BatchScorer(model, columns=columns, prefix=prefix, **options)
    if scorer.digest != digest:
        raise ModelFileError(f"{model}: not the file that this scorer was made with; copy that one here")
    return scorer


def _place(number: int, row: Mapping[str, Any]) -> str:
    """Where a row of a batch is, for errors; which rows of a file the batch holds is not known here."""
    name = row.get("id")
    return f"row {number} of the batch" + (f" (id {name})" if isinstance(name, str | int) else "")


def _list(values: Any) -> list[Any]:
    """A column as a list: of numpy, Arrow or pandas, or what it is."""
    for name in ("to_pylist", "tolist"):
        if hasattr(values, name):
            return list(getattr(values, name)())
    return list(values)


def columns_of(result: GroupScores) -> dict[str, Any]:
    """``RESULTS`` of a group that was scored; nulls and the reason where it failed."""
    if result.error is not None:
        return dict.fromkeys(RESULTS) | {"error": result.error}
    ranking = rank_scores(result.scores)
    return {
        "scores": result.scores.tolist(),
        "ranks": ranking.ranks.tolist(),
        "order": ranking.order.tolist(),
        "margin": top_margin(result.scores),
        "truncated": result.truncated.tolist(),
        "prompt_truncated": result.prompt_truncated,
        "special_text": result.special_text,
        "error": None,
    }
