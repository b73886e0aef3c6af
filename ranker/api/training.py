"""``train``: from a recipe to a checked, evaluated, exported model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.api.rows import checked_rows, write_rows
from ranker.config import ExportPrecision, RunConfig, load_config
from ranker.config.run import HELD_OUT_ROWS
from ranker.data.load import check_first_rows
from ranker.data.tables import is_rows
from ranker.errors import ConfigError
from ranker.extras import require
from ranker.progress import duration, say, shown
from ranker.runtime.modelfile import exported_name

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from ranker.evaluation.evaluation_report import EvaluationReport
    from ranker.export.parity import ParityReport
    from ranker.loading import Ranker
    from ranker.training.losses import Loss
    from ranker.training.train import Trained

logger = logging.getLogger(__name__)

DataLike = str | Path | Sequence[str | Path] | Iterable[Mapping[str, Any]] | Mapping[str, Any]
"""Files, dataset names, or rows in memory."""


@dataclass(frozen=True, slots=True, repr=False)
class TrainResult:
    """What a run leaves.

    ``checkpoint`` is the folder of the trained model. ``evaluation`` is its report on the test rows, ``exports`` the
    parity of every file that was written, by its path, and ``answers_per_second`` how fast each was in a quick look on
    this machine. In a launch of several processes only the first evaluates and
    exports; the others have neither.
    """

    config: RunConfig
    checkpoint: Path
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    evaluation: EvaluationReport | None = None
    exports: Mapping[Path, ParityReport] = field(default_factory=dict)
    answers_per_second: Mapping[Path, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        report = None if self.evaluation is None else next(iter(self.evaluation.evaluations.values())).report
        figure = "" if report is None else f", {report.main_figure()}"
        files = [str(path) for path in self.exports]
        return f"TrainResult(checkpoint='{self.checkpoint}', steps={self.steps}{figure}, exports={files})"

    @property
    def report(self) -> Path:
        """The page with all figures, ``report.html``."""
        return Path(self.config.output_dir) / "report.html"

    @property
    def model(self) -> Path:
        """What to load: the fp32 ``model.onnx`` if it was exported, else the checkpoint."""
        return next((path for path in self.exports if path.name == "model.onnx"), self.checkpoint)

    def load(self, **options: Any) -> Ranker:
        """The trained model, ready to score; ``options`` are those of ``ranker.load``."""
        from ranker.loading import load

        return load(self.model, **options)


def train(
    config: str | Path | RunConfig = "pairrm",
    *,
    model: str | Path | None = None,
    data: DataLike | None = None,
    validation: DataLike | None = None,
    test: DataLike | None = None,
    output_dir: str | Path | None = None,
    loss: str | Mapping[str, Any] | Loss | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
    overwrite: bool = False,
    log: Callable[[str], object] | None = None,
    progress: bool = True,
    **overrides: Any,
) -> TrainResult:
    """Train a ranker or reward model, evaluate it and export it.

    Args:
        config: a recipe's name (``ranker train --list``), a YAML file, or a ``RunConfig``.
        model: the backbone: a hub name, a folder, or ``offline`` (the packaged MiniLM encoder).
        data: training rows: a file, a dataset's name, several of them, or rows in memory (dicts, a ``Dataset``, a
            ``DataFrame``, a ``pyarrow.Table``); or the whole section ``data`` as a mapping.
        validation: rows that choose the checkpoint, in the same forms; without them some training prompts are held out.
        test: rows that the final report is about; without them the validation rows.
        output_dir: the folder of checkpoints, report and exports.
        loss: a loss by its name, with its settings, or an object of a subclass of ``ranker.training.losses.Loss``.
        callbacks: transformers' callbacks, called besides the built-in ones.
        resume: continue from the newest whole checkpoint in ``output_dir``.
        overwrite: delete an earlier run in ``output_dir`` first.
        log: called with a line of text when a stage begins. By default standard error shows these lines.
        progress: whether standard error shows how far it is: a bar on a terminal, a line every 30 seconds elsewhere. If
            not, the lines of stages go to the log ``ranker.progress``.
        overrides: other settings by section, ``training={"num_train_epochs": 2}``, or as ``qat="int8"``.

    Returns:
        The checkpoint, its evaluation and its exported files.

    Raises:
        ConfigError: an unknown setting, or settings that do not fit each other, the data or the backbone.
        DataError: a row that cannot be used.
        CheckpointError: a saved checkpoint that does not score like the live model.
        TrainingStopped: Ctrl-C or SIGTERM (a ``KeyboardInterrupt``); the last step is saved, ``resume`` continues.

    Example:
        >>> pairs = [{"prompt": f"{i} + 1?", "chosen": f"{i + 1}", "rejected": f"{i + 2}"} for i in range(40)]
        >>> result = ranker.train(
        ...     "pairrm", model="offline", data=pairs, output_dir="runs/sums", export={"precisions": ["fp32"]}
        ... )
        >>> result.load().rank("3 + 1?", ["5", "4"]).order.shape
        (2,)
    """
    launched, check_unused = require("ranker.training.launch").launched, require("ranker.training.resume").check_unused
    object_loss = None if loss is None or isinstance(loss, str | Mapping) else _checked_loss(loss)
    if not (model is None or isinstance(model, str | Path)):
        raise ConfigError(f"model: expected a hub name, a folder or 'offline', got {model!r:.60}")
    changes = _changes(
        {"model.name_or_path": None if model is None else str(model), "output_dir": output_dir},
        None if object_loss is not None else loss,
        overrides,
    )
    if isinstance(data, Mapping):
        changes |= {f"data.{key}": value for key, value in data.items()}
        data = None
    sources = {"train": data, "validation": validation, "test": test}
    sources = {name: rows for name, rows in sources.items() if rows is not None}
    if isinstance(config, RunConfig):
        if changes or sources:
            raise ConfigError("a RunConfig is complete; make another with load_config, or pass the recipe's name")
        settings = config
    else:
        stand_ins = {f"data.{name}": ["rows"] for name in sources}
        folder = Path(load_config(config, changes | stand_ins).output_dir)
        if not (resume or overwrite):
            check_unused(folder)  # before rows in memory are written there
        settings = load_config(config, changes | _data_changes(folder, sources, changes))
    log = log or say
    launch = launched(settings)
    if launch.main and not (resume or overwrite):
        check_unused(Path(settings.output_dir))  # the run itself checks the rest, when all settings are known
    check_rows(settings)
    with shown(progress and launch.main):
        log(
            f"{settings.model.type} on '{settings.model.name_or_path}', "
            f"rows of {', '.join(settings.data.train)}; starting"
        )
        return _run(settings, object_loss, callbacks, resume, overwrite, log)


def check_rows(config: RunConfig) -> None:
    """Look at the first row of every file of a run, before libraries and models are loaded.

    Raises:
        DataError: a file that is missing or not of its kind, or a first row that is not a labelled one.
        ConfigError: names of columns for a dataset whose columns are known.
    """
    data = config.data
    if data.on_error == "raise":
        check_first_rows([*data.train, *data.validation, *data.test], data.columns)


def _changes(named: Mapping[str, Any], loss: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as ``section.key`` settings."""
    changes = {key: str(value) for key, value in named.items() if value is not None}
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            changes |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            changes[name] = value
    return changes if loss is None else changes | {"training.loss": loss}


def _data_changes(folder: Path, sources: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of each kind as settings; rows in memory are written into the run's folder."""
    settings: dict[str, Any] = {}
    for kind, rows in sources.items():
        if is_rows(rows):
            rows = write_rows(checked_rows(rows, kind, changes.get("data.columns")), folder / f"{kind}-rows.jsonl")
        files = [rows] if isinstance(rows, str | Path) else list(rows)
        if not files:
            raise ConfigError(f"{kind} rows: expected files, dataset names or at least one row, got none")
        settings[f"data.{kind}"] = [str(file) for file in files]
    return settings


def _checked_loss(loss: Any) -> Loss:
    """A loss object.

    Raises:
        ConfigError: a class, a function or anything else.
    """
    from ranker.training.losses import Loss

    if isinstance(loss, Loss):
        return loss
    raise ConfigError(
        f"loss: expected a loss's name, its settings, or an object of a subclass of ranker.Loss, got {loss!r:.80}"
    )


def _run(
    config: RunConfig,
    loss: Loss | None,
    callbacks: Sequence[TrainerCallback],
    resume: bool,
    overwrite: bool,
    log: Callable[[str], object],
) -> TrainResult:
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.export.speed import answers_per_second
    from ranker.training.train import train as fit

    trained = fit(config, resume=resume, overwrite=overwrite, loss=loss, callbacks=callbacks, log=log)
    evaluation = None
    exports: Mapping[Path, ParityReport] = {}
    speeds: Mapping[Path, float] = {}
    if trained.main:
        evaluation, exports = _report_and_export(trained, log)
        try:
            speeds = answers_per_second([*exports], [preference.group for preference in trained.test])
        except Exception as error:  # the run is complete; a figure that cannot be had loses nothing of it
            logger.warning("the speed of the exported files was not measured: %s", error)
    return TrainResult(
        config=trained.config,
        checkpoint=trained.folder,
        steps=trained.steps,
        seconds=trained.seconds,
        history=trained.history,
        evaluation=evaluation,
        exports=exports,
        answers_per_second=speeds,
    )


def _report_and_export(
    trained: Trained, log: Callable[[str], object]
) -> tuple[EvaluationReport, dict[Path, ParityReport]]:
    """Evaluate, write the report, export, and add the exports to the report: a failed export loses no report."""
    from ranker.checkpoints.hub import push
    from ranker.evaluation import plots
    from ranker.evaluation.evaluate import evaluate
    from ranker.evaluation.evaluation_report import EvaluationReport
    from ranker.evaluation.report import card, writer
    from ranker.export.write import export

    config = trained.config
    output = Path(config.output_dir)
    split, sources = ("test", config.data.test) if config.data.test else ("validation", config.data.validation)
    rows = ", ".join(sources) or HELD_OUT_ROWS
    pace = f", {trained.tokens_per_second:,.0f} tokens per second" if trained.tokens_per_second else ""
    log(f"trained in {duration(trained.seconds)}{pace}; evaluating on {len(trained.test)} {split} rows")
    plots.learning_curve(trained.history, output / "learning.png")
    evaluation = evaluate(trained.scorer, trained.test, train=trained.train)
    training: dict[str, Any] = {
        "rows": len(trained.train),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "tokens_per_second": round(trained.tokens_per_second),
        "learning_rate": trained.learning_rate,
        "seed": config.training.seed,
    }
    name = str(trained.folder)
    facts: dict[str, Any] = {"data": list(sources), "split": split, "training": training, "exports": {}}

    def write_report() -> None:
        writer.write(output, f"{name} on {rows} ({split} rows)", {name: evaluation}, [], facts)

    write_report()
    card.write(trained.folder, config, evaluation.report, training)
    figures = evaluation.report.to_dict()
    targets: dict[ExportPrecision, Path] = {
        precision: output / exported_name(precision) for precision in config.export.precisions
    }
    if targets:
        log(f"exporting {', '.join(targets)}; each file is compared with the torch model before it is written")
    summary = {key: figures[key] for key in ("accuracy", "log_loss", "brier", "regression") if key in figures}
    parities = export(
        trained.folder,
        targets,
        rows=trained.test,
        data=f"{rows} ({split} rows)",
        evaluation=summary | {"data": list(sources), "split": split},
        on_loss="skip",
    )
    exports = {targets[precision]: parity for precision, parity in parities.items()}
    facts["exports"] = {path.name: parity.to_dict() for path, parity in exports.items()}
    write_report()
    if config.export.push_to_hub is not None:
        push(config.export.push_to_hub, trained.folder, list(exports))
    return EvaluationReport(data=f"{rows} ({split} rows)", evaluations={name: evaluation}, differences={}), exports
