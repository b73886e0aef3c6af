"""A model on a published suite, by the suite's own rules, with intervals."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from ranker.data.readers import read_rows
from ranker.errors import DataError
from ranker.evaluation.model_report import SCHEMA_VERSION
from ranker.evaluation.report.writer import METRICS, write_report
from ranker.evaluation.statistics.bootstrap import interval, resampled
from ranker.evaluation.suites.readers import SUITES, Item, Suite
from ranker.extras import require
from ranker.metrics import Estimate
from ranker.records import BadRow, Group
from ranker.scoring.protocol import Scorer

logger = logging.getLogger(__name__)

RESAMPLES: Final = 200
FILES: Final = (".json", ".jsonl", ".gz", ".zst", ".parquet")


def is_suite(data: str) -> bool:
    """Whether ``data`` is the name of a suite, or ``name=files``."""
    return data.partition("=")[0] in SUITES


def load(data: str) -> list[dict[str, Any]]:
    """Rows of ``name`` from the hub, or of ``name=FILE`` (a file or a folder); ``config`` names the part of the suite.

    Raises:
        DataError: a row without the suite's columns, a suite that is not on the hub, or one that cannot be fetched.
    """
    name, _, source = data.partition("=")
    suite = SUITES[name]
    located = list(_files(Path(source)) if source else _hub(name, suite))
    for where, row in located:
        missing = [column for column in suite.columns if column not in row]
        if missing:
            raise DataError(where, missing[0], f"expected the columns of {name}, {', '.join(suite.columns)}")
    if not located:
        raise DataError(data, "rows", "expected at least one, got none")
    return [row for _, row in located]


def _files(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    parts = sorted(p for p in source.rglob("*") if p.suffix in FILES) if source.is_dir() else [source]
    for path in parts:
        config = path.parent.name if path.stem in ("dataset", "task") else path.name.partition(".")[0]
        for where, row in _json(path) if path.suffix == ".json" else read_rows(str(path)):
            if isinstance(row, BadRow):
                raise row.error
            yield where, {"config": config} | row


def _json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(path), "file", f"expected a JSON list of rows ({error})") from error
    rows = rows.get("examples", [rows]) if isinstance(rows, dict) else rows
    yield from ((f"{path}:{number}", row) for number, row in enumerate(rows, 1))


def _hub(name: str, suite: Suite) -> Iterator[tuple[str, dict[str, Any]]]:
    if suite.path is None:
        raise DataError(name, "data", f"{name} is published as files; give them: --data {name}=FILE_OR_FOLDER")
    for config in suite.configs:
        try:
            rows = require("datasets").load_dataset(suite.path, config, split=suite.split, revision=suite.revision)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(name, "data", f"{suite.path} cannot be fetched ({reason:.200}); or: {name}=FILE") from error
        yield from ((f"{name}:{number}", {"config": config} | row) for number, row in enumerate(rows, 1))


def evaluate(scorer: Scorer, data: str, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Estimate], int]:
    """The suite's figures with their number of rows and bootstrap intervals, and how many rows could not be scored.

    Raises:
        DataError: the rows lack a part that a figure of the suite needs.
    """
    suite = SUITES[data.partition("=")[0]]
    groups: list[tuple[Group, ...]] = [suite.groups(row) for row in rows]
    results = iter(scorer.score([group for row_groups in groups for group in row_groups], preserve_order=True))
    items = [Item(row, tuple(next(results) for _ in row_groups)) for row, row_groups in zip(rows, groups, strict=True)]
    units: dict[Any, list[Item]] = defaultdict(list)
    for number, item in enumerate(items):
        units[suite.unit(item.row, number)].append(item)
    parts = list(units.values())
    try:
        figures = suite.figures(_drawn(parts, range(len(parts))))
    except ValueError as error:
        raise DataError(data, "rows", f"not the whole suite: {error}") from error
    draws = []
    for picked in resampled(len(parts), RESAMPLES, seed=0):
        try:
            draws.append(suite.figures(_drawn(parts, picked.tolist())))
        except ValueError:  # a draw without any row of a small part
            continue
    failures = sum(any(result.error is not None for result in item.results) for item in items)
    counts = Counter(part for row in rows for part in suite.parts(row))
    estimates = {
        name: _estimate(value, [d[name] for d in draws if name in d], counts.get(name, len(items)))
        for name, value in figures.items()
    }
    return estimates, failures


def evaluate_models(
    scorers: Mapping[str, Scorer], data: str, *, output: Path | None = None
) -> dict[str, dict[str, Estimate]]:
    """The figures of several models on a suite, by the models' names.

    Args:
        scorers: the models.
        data: ``NAME``, or ``NAME=FILE_OR_FOLDER``.
        output: a folder in which ``metrics.json`` is written.

    Raises:
        DataError: as in ``load`` and ``evaluate``.
    """
    rows = load(data)
    figures: dict[str, dict[str, Estimate]] = {}
    reports: dict[str, Any] = {}
    for model, scorer in scorers.items():
        figures[model], failed = evaluate(scorer, data, rows)
        reports[model] = {name: asdict(value) for name, value in figures[model].items()} | {"failed": failed}
        if failed:
            logger.warning("%d of %d rows could not be scored and count as lost", failed, len(rows))
    if output is not None:
        write_report({"schema_version": SCHEMA_VERSION, "suite": data, "models": reports}, output / METRICS)
    return figures


def _drawn(parts: Sequence[Sequence[Item]], picked: Sequence[int]) -> list[Item]:
    return [replace(item, draw=draw) for draw, number in enumerate(picked) for item in parts[number]]


def _estimate(value: float, draws: Sequence[float], n: int) -> Estimate:
    low, high = interval(draws)
    return Estimate(value, float(low), float(high), n)
