"""Arguments that the integrations share: the model with its options, its columns, and what they do not support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from ranker.batch_scorer import BatchScorer
from ranker.data.read_row import Columns
from ranker.errors import ConfigError, nearest
from ranker.loading import LOAD_OPTIONS, Ranker, load
from ranker.scoring.protocol import Scorer

BATCH: Final = 512
"""Candidates between two steps of a progress bar, where no batch size is given."""


def load_ranker(call: str, model: str | Path | Ranker, options: Mapping[str, Any]) -> Ranker:
    """The model, loaded at once.

    Args:
        call: the integration's name, for errors.
        model: a loaded model, or what ``ranker.load`` reads.
        options: those of ``ranker.load``; none for a loaded model.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have, or options for a loaded model.
    """
    check_options(call, model, options)
    return model if isinstance(model, Ranker) else load(model, **options)


def load_batch_scorer(
    call: str,
    model: str | Path | Ranker,
    options: Mapping[str, Any],
    *,
    columns: Columns | None = None,
    prefix: str = "ranker_",
) -> BatchScorer:
    """A ``BatchScorer``, which loads a path's model with its first rows; arguments as in ``load_ranker``.

    Raises:
        ConfigError: as in ``load_ranker`` and ``BatchScorer``.
    """
    check_options(call, model, options)
    if isinstance(model, Ranker):
        return LoadedBatchScorer(model, columns=columns, prefix=prefix)
    return BatchScorer(model, columns=columns, prefix=prefix, **options)


class LoadedBatchScorer(BatchScorer):
    """A ``BatchScorer`` over a model that is loaded already; it stays in this process."""

    def __init__(self, ranker: Ranker, *, columns: Columns | None = None, prefix: str = "ranker_") -> None:
        super().__init__("a loaded model", columns=columns, prefix=prefix)
        self.model = ranker.name or self.model
        self._ranker = ranker

    @property
    def scorer(self) -> Scorer:
        """The model."""
        return self._ranker.scorer

    def __deepcopy__(self, memo: dict[int, Any]) -> LoadedBatchScorer:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise ConfigError("a loaded model cannot be sent to another process; give its path")


def check_options(call: str, model: object, options: Mapping[str, Any]) -> None:
    """Refuse options that ``ranker.load`` does not have, and all options for a loaded model.

    Raises:
        ConfigError: naming the option.
    """
    for name in options:
        if name not in LOAD_OPTIONS:
            raise ConfigError(
                f"{call} does not honour {name}; its options are those of ranker.load{nearest(name, LOAD_OPTIONS)}"
            )
    if options and isinstance(model, Ranker):
        raise ConfigError(f"{call}: the model is loaded already; give {', '.join(options)} to ranker.load")


def prompt_column(call: str, columns: Columns | None) -> str | None:
    """The column of the prompt in ``{"prompt": NAME}``; None without columns.

    Raises:
        ConfigError: a column for anything but the prompt.
    """
    for name in columns or {}:
        if name != "prompt":
            raise ConfigError(f"{call}: expected columns={{'prompt': NAME}}, got a column for '{name}'")
    return (columns or {}).get("prompt")


def add_columns(row: MutableMapping[str, Any], columns: Mapping[str, Any], prefix: str) -> None:
    """Add the columns of a result to a row.

    Raises:
        ConfigError: the row has one of them already.
    """
    for name in columns:
        if name in row:
            raise ConfigError(f"a row has '{name}' already; choose another prefix than '{prefix}'")
    row.update(columns)


def batches(sizes: Sequence[int], limit: int | None, *, progress: bool) -> Iterator[slice]:
    """Slices of consecutive groups with at most ``limit`` candidates in all; a larger group is a batch of its own.

    Args:
        sizes: candidates of each group.
        limit: the host library's batch size; None: all groups are one batch, and the model cuts it by tokens.
        progress: whether a progress bar in candidates is shown on standard error.

    Raises:
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"expected a batch size of at least 1, got {limit}")
    total = sum(sizes)
    most = limit or (BATCH if progress else total)
    with tqdm(total=total, disable=not progress) as bar:
        start = 0
        while start < len(sizes):
            stop = start + 1
            count = sizes[start]
            while stop < len(sizes) and count + sizes[stop] <= most:
                count += sizes[stop]
                stop += 1
            yield slice(start, stop)
            bar.update(count)
            start = stop


def refuse(call: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that would change the result in the host library and are not supported here.

    None, False, 0 and empty values are the defaults of the host libraries and pass.

    Raises:
        ConfigError: naming them.
    """
    names = [name for name, value in arguments.items() if not _is_default(value)]
    if names:
        raise ConfigError(f"{call} does not honour {', '.join(names)}; leave it out, or use the library itself")


def _is_default(value: object) -> bool:
    return value is None or (isinstance(value, bool | int | float | str | list | tuple | dict) and not value)
