"""The rows of a run: loaded, mixed, without repeats and leaks, and checked against the model's outputs."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ranker.config import RunConfig
from ranker.config.losses import AnswerLossConfig, TokenPairwiseLossConfig
from ranker.config.models import PointwiseConfig
from ranker.data.load import load_preferences, merged_answers, mixed
from ranker.data.overlap import Sameness, duplicates, leaks
from ranker.errors import ConfigError, DataError
from ranker.records import Preference

logger = logging.getLogger(__name__)


HELD_OUT_SHARE: Final = 0.05
HELD_OUT_LEAST: Final = 50
HELD_OUT_OF_FEW: Final = 0.2
HELD_OUT_MOST: Final = 1000
"""Training prompts that become the validation rows where ``data.validation`` names none: a twentieth, at most 1000, at
least 50, and of few prompts a fifth."""


def load(config: RunConfig) -> tuple[list[Preference], list[Preference], list[Preference]]:
    """Training, validation and test records.

    Without ``data.validation`` a twentieth of the training prompts is held out; without ``data.test`` the validation
    rows are the test.

    Raises:
        DataError: a bad row under ``on_error: raise``, or an overlap under ``train_eval_overlap: raise``.
        ConfigError: weights or labels that do not fit, or validation rows that hold no comparison.
    """
    data = config.data
    options: dict[str, Any] = {"columns": data.columns, "on_error": data.on_error, "streaming": data.streaming}
    single = isinstance(config.training.loss, AnswerLossConfig)
    parts = [
        load_preferences([source], limit=data.max_train_samples, single=single, **options).preferences
        for source in data.train
    ]
    if data.validation:
        validation = load_preferences(
            data.validation, limit=data.max_eval_samples, fall_back=single, **options
        ).preferences
    else:
        parts, validation = held_out(parts, config.training.seed, single=single)
        logger.warning(
            "data.validation is not set: %d rows of data.train are held out as validation rows", len(validation)
        )
    test = validation
    if data.test:
        test = load_preferences(data.test, limit=data.max_test_samples, fall_back=single, **options).preferences
    if data.deduplicate != "none":
        parts = without_repeats(parts, data.deduplicate, data.similarity)
    training = mixed(parts, data.weights or (1.0,) * len(parts), config.training.seed)
    training = without_leaks(config, training, [*validation, *test])
    training = _without_unread_spans(config, training)
    check_labels(config, [*training, *validation])
    return training, validation, test


def held_out(
    parts: Sequence[list[Preference]], seed: int, *, single: bool = False
) -> tuple[list[list[Preference]], list[Preference]]:
    """The sources without the rows of some prompts, and those of these rows that hold a comparison.

    All rows of a prompt go to one side. Rows of one prompt, or of none, are held out by their answers. Rows of single
    answers, whose labels are learned one by one, are held out whole where none of them can be compared.

    Raises:
        ConfigError: fewer than two rows, or none of the held-out rows holds a comparison.
    """
    keys: Callable[[Preference], str] = _prompt_key
    names = sorted({keys(row) for part in parts for row in part})
    if len(names) < 2:
        keys = _answers_key
        names = sorted({keys(row) for part in parts for row in part})
    if len(names) < 2:
        raise ConfigError(
            "data.validation is not set and data.train has one distinct row, so none can be held out; set it"
        )
    least = min(HELD_OUT_LEAST, round(HELD_OUT_OF_FEW * len(names)))
    count = min(HELD_OUT_MOST, max(1, least, round(HELD_OUT_SHARE * len(names))))
    chosen = set(random.Random(seed).sample(names, count))
    kept = [[row for row in part if keys(row) not in chosen] for part in parts]
    rows = [row for part in parts for row in part if keys(row) in chosen]
    validation = [row for row in merged_answers(rows) if _is_comparison(row)]
    if not validation and single:
        validation = rows
    if not validation:
        raise ConfigError(
            "data.validation is not set and the rows held out of data.train hold no comparison (two answers with "
            "different labels to one prompt); set data.validation"
        )
    return kept, validation


def _prompt_key(row: Preference) -> str:
    """What rows of one prompt share; rows without a prompt have nothing in common."""
    return repr(row.prompt) if row.prompt else _answers_key(row)


def _answers_key(row: Preference) -> str:
    return repr(row.candidates)


def _is_comparison(row: Preference) -> bool:
    return any(target == target for _, _, values in row.pairs() for target in values)


def _without_unread_spans(config: RunConfig, training: list[Preference]) -> list[Preference]:
    count = sum(bool(row.spans) for row in training)
    if not count or isinstance(config.training.loss, TokenPairwiseLossConfig):
        return training
    logger.warning(
        "%d of %d training rows have token spans, which training.loss '%s' does not read (token_pairwise does); they "
        "count as whole answers",
        count,
        len(training),
        config.training.loss.type,
    )
    return [replace(row, spans=()) for row in training]


def load_aspects(config: RunConfig, aspects: Sequence[str], held_out: Sequence[Preference]) -> list[Preference]:
    """The rows of ``data.aspects``, with the labels of ``aspects`` in their order, NaN where one is missing.

    Raises:
        ConfigError: a row with a label that is not among the aspects, or without names.
    """
    data = config.data
    rows: list[Preference] = []
    for source in data.aspects:
        rows += load_preferences(
            [source],
            columns=data.aspect_columns,
            on_error=data.on_error,
            single=True,
            limit=data.max_train_samples,
            streaming=data.streaming,
        ).preferences
    for row in rows:
        if not row.tasks or not set(row.tasks) <= set(aspects):
            raise ConfigError(
                f"row '{row.id}' of data.aspects has labels {', '.join(row.tasks) or 'without names'}, expected some "
                f"of {', '.join(aspects)}; set model.aspects, or data.aspect_columns.scores to their column"
            )
    return without_leaks(config, [_with_aspects(row, aspects) for row in rows], held_out)


def _with_aspects(row: Preference, aspects: Sequence[str]) -> Preference:
    named = [dict(zip(row.tasks, scores, strict=True)) for scores in row.scores]
    scores = tuple(tuple(labels.get(aspect, float("nan")) for aspect in aspects) for labels in named)
    return replace(row, scores=scores, tasks=tuple(aspects))


def without_repeats(parts: Sequence[list[Preference]], same: Sameness, similarity: float) -> list[list[Preference]]:
    """The sources without rows that an earlier row, of whichever source, already says."""
    repeated = set(duplicates([row for part in parts for row in part], same, similarity=similarity))
    kept, start = [], 0
    for part in parts:
        kept.append([row for number, row in enumerate(part, start) if number not in repeated])
        start += len(part)
    if repeated:
        logger.warning("%d of %d training rows are repeats (%s); left out", len(repeated), start, same)
    return kept


def without_leaks(config: RunConfig, training: list[Preference], held_out: Sequence[Preference]) -> list[Preference]:
    """The training rows, as ``data.train_eval_overlap`` says, without those whose prompt is also held out.

    Raises:
        DataError: naming the first such row, under ``train_eval_overlap: raise``, or if ``drop`` would leave none.
    """
    data = config.data
    if data.train_eval_overlap == "ignore":
        return training
    same: Sameness = "near" if data.deduplicate == "near" else "exact"
    shared = set(leaks(training, held_out, same, similarity=data.similarity))
    if not shared:
        return training
    first = training[min(shared)].id
    what = (
        f"{len(shared)} of {len(training)} training rows have a prompt that is also in the validation or test rows "
        f"({same}), first '{first}'"
    )
    if data.train_eval_overlap == "raise":
        raise DataError(
            ", ".join(data.train), "prompt", f"{what}; expected none, or set data.train_eval_overlap=drop or warn"
        )
    if data.train_eval_overlap == "drop" and len(shared) == len(training):
        raise DataError(
            ", ".join(data.train), "prompt", f"{what}; no row would be left, set data.train_eval_overlap=warn or ignore"
        )
    if data.train_eval_overlap == "warn":
        logger.warning("%s; data.train_eval_overlap=drop leaves them out", what)
        return training
    logger.warning("%s; left out", what)
    return [row for number, row in enumerate(training) if number not in shared]


def check_labels(config: RunConfig, preferences: Sequence[Preference]) -> None:
    """Refuse labels that are not one per output of the model, or that change their names between rows.

    Raises:
        ConfigError: naming the row, its labels and what the model has.
    """
    aspects = config.model.aspects if isinstance(config.model, PointwiseConfig) else ()
    expected = aspects or preferences[0].tasks
    for preference in preferences:
        labels = len(preference.scores[0])
        if labels != config.num_labels or preference.tasks != expected:
            row_names = f" ({', '.join(preference.tasks)})" if preference.tasks else ""
            model_names = f" ({', '.join(expected)})" if expected else ""
            setting = "model.aspects" if isinstance(config.model, PointwiseConfig) else "model.num_labels"
            raise ConfigError(
                f"row '{preference.id}' has {labels} labels{row_names} per answer, the model {config.num_labels} "
                f"outputs{model_names}; set {setting}"
            )
