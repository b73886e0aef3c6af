"""Models on the same labelled rows: their figures, the differences between them, and the report's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ranker.errors import ConfigError, DataError, nearest
from ranker.evaluation.evaluate import Evaluation, evaluate
from ranker.evaluation.model_report import ModelReport
from ranker.evaluation.report import page, writer
from ranker.evaluation.report.tables import compared, headline, plain_text
from ranker.evaluation.robustness import robustness
from ranker.evaluation.statistics.paired import Paired, paired
from ranker.extras import require
from ranker.metrics import Share
from ranker.records import Preference
from ranker.scoring.protocol import Scorer
from ranker.text.templates import render_prompt


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EvaluationReport:
    """Models evaluated on the same rows.

    ``report[name]`` is the ``ModelReport`` of a model, and iterating gives the models' names.

    Attributes:
        data: what the rows are called; may be empty.
        evaluations: by the model's name its figures, and the rows, scores and comparisons that they summarise.
        differences: by two names the accuracy of the second minus that of the first; None where the two have no
            comparison in common.

    Example:
        >>> report = ranker.evaluate({"old": "model.onnx", "new": "model.onnx"}, "data/rows.jsonl")
        >>> print(report["new"].accuracy)  # value [95 % interval] (n comparisons)
        0... [0..., 0...] (n=...)
        >>> report.differences["old", "new"].worse
        False
        >>> report.save("reports/new")
        PosixPath('reports/new/report.html')
    """

    data: str
    evaluations: Mapping[str, Evaluation]
    differences: Mapping[tuple[str, str], Paired | None]

    @property
    def accuracy(self) -> Share:
        """Pairwise accuracy of the only model, with its 95 % interval over prompts.

        Raises:
            ConfigError: the report has several models; the message names them.
        """
        if len(self.evaluations) != 1:
            raise ConfigError(f"expected a report of one model, got {', '.join(self)}; take report[name].accuracy")
        return next(iter(self.evaluations.values())).report.accuracy

    def __getitem__(self, model: str) -> ModelReport:
        """The figures of a model.

        Raises:
            ConfigError: the report has no such model.
        """
        if model not in self.evaluations:
            raise ConfigError(f"no model '{model}' in this report{nearest(model, self.evaluations)}")
        return self.evaluations[model].report

    def __iter__(self) -> Iterator[str]:
        return iter(self.evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    def __str__(self) -> str:
        """The main numbers of every model, then the differences, as plain text."""
        tables = [plain_text(self._on_data(name), headline(self[name])) for name in self]
        if self.differences:
            tables.append(plain_text("difference in accuracy", self.difference_rows()))
        return "\n\n".join(tables)

    def __repr__(self) -> str:
        figures = ", ".join(f"'{name}': '{self[name].accuracy}'" for name in self)
        return f"EvaluationReport(data='{self.data}', accuracy={{{figures}}})"

    def _repr_html_(self) -> str:
        return page.tables(self.evaluations, self.difference_rows())

    def difference_rows(self) -> list[tuple[str, str]]:
        """The differences as (name, text) rows: interval, who alone was right, and the exact test."""
        return [
            (f"{second} - {first}", compared(difference, first, second))
            for (first, second), difference in self.differences.items()
        ]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one row per model and labelled comparison.

        Columns are those of ``examples.parquet``: ``model``, ``key`` (of prompt and both answers), ``group`` (row
        number of the data), ``id``, ``subset``, ``left`` and ``right`` (candidates), ``target`` (probability that the
        left one is better), ``logit``, ``truncated`` (either answer); then ``prompt``, ``left_text``, ``right_text``,
        and ``credit``: 1 for a right decision, 0.5 for a tie, 0 for a wrong one, NaN where the labels are tied.

        Example:
            >>> frame = ranker.evaluate("model.onnx", "data/rows.jsonl").to_pandas()
            >>> mistakes = frame[frame.credit == 0]
            >>> mistakes[["prompt", "left_text", "right_text", "logit"]].shape[1]
            4

        Raises:
            MissingExtraError: pandas is not installed.
        """
        require("pandas")
        frame = writer.examples(self.evaluations).to_pandas()
        rows = {name: evaluation.preferences for name, evaluation in self.evaluations.items()}
        compared = [rows[model][group] for model, group in zip(frame.model, frame.group, strict=True)]
        frame["prompt"] = [render_prompt(row.prompt) for row in compared]
        for side in ("left", "right"):
            frame[f"{side}_text"] = [row.candidates[i] for row, i in zip(compared, frame[side], strict=True)]
        decided = frame.target != 0.5
        right = (frame.logit > 0) == (frame.target > 0.5)
        frame["credit"] = right.astype(float).mask(frame.logit == 0, 0.5).where(decided)
        return frame

    def save(self, folder: str | Path) -> Path:
        """Write ``metrics.json``, ``examples.parquet``, ``report.html`` and ``report.md``.

        A later evaluation can be compared with these files: ``evaluate_models(..., baseline=folder / "metrics.json")``.

        Args:
            folder: where the files go; it is created where it does not exist.

        Returns:
            The path of ``report.html``.
        """
        facts = {"data": [self.data] if self.data else []}
        title = self._on_data(", ".join(self))
        writer.write(Path(folder), title, self.evaluations, self.difference_rows(), facts)
        return Path(folder) / writer.PAGE

    def _on_data(self, models: str) -> str:
        return f"{models} on {self.data}" if self.data else models


def evaluate_models(
    scorers: Mapping[str, Scorer],
    rows: Sequence[Preference],
    *,
    data: str = "",
    train: Sequence[Preference] = (),
    baseline: Path | None = None,
) -> EvaluationReport:
    """Evaluate models on labelled rows, beside rules without understanding, and compare them with each other.

    Args:
        scorers: by the models' names.
        rows: labelled rows.
        data: what the rows are called in the report.
        train: rows on which the bag-of-words baseline is fitted; without them it is left out.
        baseline: ``metrics.json`` of an earlier evaluation, with which the first model is compared.

    Raises:
        ConfigError: no model.
        DataError: the baseline does not exist, is of another version, or has no comparison of these rows.
    """
    if not scorers:
        raise ConfigError("expected at least one model to evaluate, got none")
    if baseline is not None and not baseline.is_file():
        raise DataError(str(baseline), "baseline", "expected an existing metrics.json, found none; check the path")
    evaluations = {
        name: _with_robustness(scorer, evaluate(scorer, rows, train=train)) for name, scorer in scorers.items()
    }
    return EvaluationReport(data, evaluations, differences(evaluations, baseline))


def _with_robustness(scorer: Scorer, evaluation: Evaluation) -> Evaluation:
    effects = robustness(scorer, evaluation.preferences)
    return replace(evaluation, report=replace(evaluation.report, robustness=effects))


def differences(
    evaluations: Mapping[str, Evaluation], baseline: Path | None = None
) -> dict[tuple[str, str], Paired | None]:
    """Compare the first model with the baseline, and every other model with the first.

    Args:
        evaluations: by the models' names, at least one.
        baseline: ``metrics.json`` of an earlier evaluation; its first model is compared.

    Returns:
        By two names the accuracy of the second minus that of the first, the baseline's first; None where the two have
        no comparison in common.

    Raises:
        DataError: the baseline cannot be read, is of another version, or has no comparison of these rows.
    """
    (first, evaluation), *others = evaluations.items()
    by_names: dict[tuple[str, str], Paired | None] = {}
    if baseline is not None:
        earlier_name, earlier = writer.baseline(baseline, evaluation)
        by_names[f"{earlier_name} (baseline {baseline})", first] = paired(earlier, evaluation.comparisons)
    for name, other in others:
        by_names[first, name] = paired(evaluation.comparisons, other.comparisons)
    return by_names
