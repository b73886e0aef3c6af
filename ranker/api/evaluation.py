"""``evaluate``: models on labelled rows, beside their baselines and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.api.rows import RowsLike, name_of, preferences_of
from ranker.data.read_row import Columns
from ranker.errors import ConfigError
from ranker.loading import Ranker, load
from ranker.progress import shown
from ranker.scoring.protocol import Scorer

if TYPE_CHECKING:
    from ranker.evaluation.evaluation_report import EvaluationReport

ModelLike = str | Path | Ranker
"""What ``ranker.load`` reads, or a loaded model."""


def evaluate(
    models: ModelLike | Sequence[ModelLike] | Mapping[str, ModelLike],
    rows: RowsLike,
    *,
    train: RowsLike | None = None,
    columns: Columns | None = None,
    baseline: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> EvaluationReport:
    """Evaluate models on labelled rows: accuracy, ties, calibration, order and length effects, agreement, best-of-n.

    Of single answers with a label each, which hold no comparison: Spearman correlation and RMSE.

    Every figure has its n and its 95 % interval over prompts; random and longer-wins baselines stand beside it.

    Args:
        models: one model, several, or several by name.
        rows: labelled rows: a file, a dataset's name, or dicts.
        train: training rows, for the bag-of-words baseline.
        columns: names of the columns where they differ from the known ones.
        baseline: an earlier ``metrics.json``, with which the first model is compared.
        progress: whether standard error shows how far it is.
        options: those of ``ranker.load``.

    Returns:
        The report: ``report.accuracy``, ``report[model]``, ``report.to_pandas()``, ``report.save(folder)``.

    Raises:
        ConfigError: a model is named twice, or no model is given.
        DataError: a bad row, or there is no such baseline.

    Example:
        >>> rows = [{"prompt": f"{i} + 1?", "chosen": f"{i + 1}", "rejected": f"{i}"} for i in range(9)]
        >>> ranker.evaluate("model.onnx", rows).accuracy.n
        9
    """
    from ranker.evaluation.evaluation_report import evaluate_models

    labelled = preferences_of(rows, columns, single=True)
    training = [] if train is None else preferences_of(train, columns)
    with shown(progress):
        return evaluate_models(
            scorers_of(models, **options),
            labelled,
            data=name_of(rows),
            train=training,
            baseline=None if baseline is None else Path(baseline),
        )


def scorers_of(models: ModelLike | Sequence[ModelLike] | Mapping[str, ModelLike], **options: Any) -> dict[str, Scorer]:
    """The scorers of models by name, loaded where they are not.

    Raises:
        ConfigError: a model is named twice, or no model is given.
    """
    if isinstance(models, Mapping):
        named = list(models.items())
    else:
        several = [models] if isinstance(models, str | Path | Ranker) else list(models)
        named = [(model.name if isinstance(model, Ranker) else str(model), model) for model in several]
    names = [name for name, _ in named]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"expected every model once, got {', '.join(names) or 'none'}")
    return {name: (model if isinstance(model, Ranker) else load(model, **options)).scorer for name, model in named}
