"""``metrics.json`` and ``examples.parquet``, with which later evaluations are compared, and the report's pages."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from ranker.data.files import finite
from ranker.errors import DataError
from ranker.evaluation.evaluate import Evaluation
from ranker.evaluation.model_report import SCHEMA_VERSION
from ranker.evaluation.report import page
from ranker.evaluation.report.tables import Rows
from ranker.metrics import Comparisons
from ranker.text.templates import clean, render_prompt

logger = logging.getLogger(__name__)

METRICS: Final = "metrics.json"
EXAMPLES: Final = "examples.parquet"
PAGE: Final = "report.html"
MARKDOWN: Final = "report.md"


def write(
    folder: Path, title: str, evaluations: Mapping[str, Evaluation], compared: Rows, facts: Mapping[str, Any]
) -> None:
    """All files of a report: ``metrics.json``, ``examples.parquet``, ``report.html`` and ``report.md``.

    Args:
        folder: where the files go.
        title: the page's title.
        evaluations: by the models' names.
        compared: differences between models, as rows of text.
        facts: further entries of ``metrics.json``.
    """
    reports = {name: evaluation.report.to_dict() for name, evaluation in evaluations.items()}
    metrics = {"schema_version": SCHEMA_VERSION, **facts, "models": reports, "compared": dict(compared)}
    write_report(metrics, folder / METRICS)
    write_examples(evaluations, folder / EXAMPLES)
    (folder / PAGE).write_text(clean(page.html(title, evaluations, compared)), encoding="utf-8")
    (folder / MARKDOWN).write_text(clean(page.markdown(title, evaluations, compared)), encoding="utf-8")


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the JSON object of a report; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(clean(text) + "\n", encoding="utf-8")


def write_examples(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Write ``examples`` as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(examples(evaluations), path)


def examples(evaluations: Mapping[str, Evaluation]) -> pa.Table:
    """One row per model and labelled comparison.

    Columns: ``model``, ``key`` (of prompt and both answers), ``group`` (row number of the data), ``id``, ``subset``,
    ``left`` and ``right`` (candidates), ``target`` (probability that the left one is better), ``logit``, ``truncated``
    (either answer).
    """
    tables = []
    for name, evaluation in evaluations.items():
        compared, rows = evaluation.comparisons, evaluation.preferences
        groups = compared.groups.tolist()
        left, right = compared.indices.T.tolist() if groups else ([], [])
        cut = [evaluation.results[g].truncated[pair].any() for g, pair in zip(groups, compared.indices, strict=True)]
        tables.append(
            pa.table(
                {
                    "model": pa.array([clean(name)] * len(groups), pa.string()),
                    "key": pa.array(keys(evaluation), pa.string()),
                    "group": pa.array(groups, pa.int64()),
                    "id": pa.array([clean(rows[g].id) for g in groups], pa.string()),
                    "subset": pa.array([clean(rows[g].subset) for g in groups], pa.string()),
                    "left": pa.array(left, pa.int64()),
                    "right": pa.array(right, pa.int64()),
                    "target": compared.targets,
                    "logit": compared.logits,
                    "truncated": pa.array(cut, pa.bool_()),
                }
            )
        )
    return pa.concat_tables(tables)


def keys(evaluation: Evaluation) -> list[str]:
    """The key of each comparison, which does not depend on its position: a digest of prompt and answers, in hex."""
    compared = evaluation.comparisons
    digests = []
    for group, (i, j) in zip(compared.groups.tolist(), compared.indices.tolist(), strict=True):
        row = evaluation.preferences[group]
        text = json.dumps([render_prompt(row.prompt), row.candidates[i], row.candidates[j]])
        digests.append(hashlib.sha256(text.encode()).hexdigest()[:24])
    return digests


def baseline(metrics: Path, evaluation: Evaluation) -> tuple[str, Comparisons]:
    """The first model of an earlier evaluation, and its comparisons that ``evaluation`` has too, with its numbers.

    Read from ``metrics.json`` and the Parquet beside it. Comparisons match by their texts, at any position.

    Raises:
        DataError: no such files, of another version, or nothing in common.
    """
    try:
        report: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(metrics), "baseline", f"expected a metrics.json of ranker eval ({error})") from error
    if not isinstance(report, dict) or report.get("schema_version") != SCHEMA_VERSION or "models" not in report:
        raise DataError(str(metrics), "schema_version", f"expected {SCHEMA_VERSION}; evaluate the baseline again")
    examples = metrics.with_name(EXAMPLES)
    if not examples.is_file():
        raise DataError(str(examples), "baseline", "expected the comparisons beside metrics.json; copy them too")
    name = next(iter(report["models"]))
    columns = parquet.read_table(examples, columns=["key", "logit"], filters=[("model", "=", clean(name))])
    logits = dict(zip(columns["key"].to_pylist(), columns["logit"].to_pylist(), strict=True))
    evaluation_keys = keys(evaluation)
    shared = np.array([key in logits for key in evaluation_keys], np.bool_)
    if not shared.any():
        raise DataError(str(examples), "key", "expected comparisons of these rows, got none; evaluate it again on them")
    if not shared.all():
        logger.warning("%d of %d comparisons are in the baseline; only they are compared", shared.sum(), len(shared))
    baseline_logits = np.array([logits[key] for key in evaluation_keys if key in logits], np.float64)
    return name, replace(evaluation.comparisons.where(shared), logits=baseline_logits)
