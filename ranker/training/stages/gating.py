"""ArmoRM's two stages on frozen features: ridge regression of the aspects, then a gate trained on preferences.

Source: arXiv 2406.12845 and RLHFlow's scripts, without their two faults (see ``ranker.models.armorm``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranker.checkpoints import native
from ranker.config import RunConfig
from ranker.config.models import ArmoRMConfig
from ranker.errors import ConfigError, DataError
from ranker.extras import require
from ranker.models.armorm import GatedModel
from ranker.models.attention.kernels import attention_kernel
from ranker.models.build import new_model
from ranker.models.torch_scorer import TorchScorer
from ranker.progress import stepped
from ranker.records import Group, Preference
from ranker.scoring import batching
from ranker.scoring.distinct import once
from ranker.scoring.pipeline import TextPipeline
from ranker.training.losses.pairwise import bradley_terry
from ranker.training.rows import load_aspects

logger = logging.getLogger(__name__)

ALPHAS: Final = tuple(10.0**power for power in range(-4, 5))
"""Ridge penalties that are tried for every aspect."""

PENALTIES: Final = (0.0, 0.01, *(round(0.025 * k, 3) for k in range(1, 7)), *(round(0.05 * k, 2) for k in range(4, 20)))
"""Shares of verbosity that are taken out of an aspect, tried in order: 0, .01, .025, .05, .. .15, .2, .25, .. .95."""

SLICE: Final = 512
"""Groups whose features are read at a time."""

HELD_OUT: Final = 0.2
"""Share of the labelled answers that choose a ridge penalty."""

Matrix = NDArray[np.float64]


def fit(
    config: RunConfig, preferences: Sequence[Preference], held_out: Sequence[Preference]
) -> tuple[Path, TorchScorer, list[dict[str, Any]], int]:
    """Fit the aspects on ``data.aspects`` and the gate on ``preferences``; the backbone stays as it is.

    Features wait in main memory: 8 bytes x hidden for every distinct answer, and while the aspects are fitted as much
    for every labelled answer.

    Returns:
        The checkpoint folder, a scorer, the log of the gate's loss, and its steps.

    Raises:
        ConfigError: rows of ``data.aspects`` with labels that are not in ``model.aspects``.
    """
    settings = armorm_of(config)
    rows = load_aspects(config, settings.aspects, held_out)
    new, tokenizer = new_model(settings, config.output)
    model: Any = new.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = TextPipeline(model.layout, tokenizer)

    tokens = config.training.tokens_per_forward
    read = features(model, pipeline, [p.group for p in rows], tokens)
    labels = np.array([scores for p in rows for scores in p.scores], np.float64)
    states = read.answers[read.places].double().numpy()
    weights = ridge(states, labels, seed=config.training.seed)
    model.regression_layer.weight.data.copy_(torch.from_numpy(weights))
    transform = np.eye(len(settings.aspects))
    if settings.gate.verbosity is not None:
        column = settings.aspects.index(settings.gate.verbosity)
        transform = decorrelation(states @ weights.T, column, settings.gate.max_correlation)
    model.reward_transform_matrix.data.copy_(torch.from_numpy(transform))

    read = features(model, pipeline, [p.group for p in preferences], tokens)
    history = train_gate(model, read, preferences, config)
    folder = Path(config.output_dir) / "checkpoint"
    native.replace(model.eval(), tokenizer, folder)
    scorer = TorchScorer(model, tokenizer)
    native.check_reload(scorer, folder, [p.group for p in preferences[:8]])
    return folder, scorer, history, settings.gate.steps


@dataclass(frozen=True, slots=True)
class Features:
    """States (distinct answers, hidden) of the answers and of their prompts, and the place (answers,) of each answer.

    On the processor, in fp32. ``places`` are those of all candidates of all groups, in order.
    """

    answers: Tensor
    prompts: Tensor
    places: Tensor


@torch.no_grad()
def features(
    model: GatedModel, pipeline: TextPipeline, groups: Sequence[Group], max_tokens_per_forward: int
) -> Features:
    """What the backbone makes of the answers of ``groups``; each distinct one is read once."""
    plan = once(groups)
    starts = np.cumsum([0, *(len(group.candidates) for group in plan.groups)])
    answers, prompts = (torch.zeros(int(starts[-1]), model.regression_layer.in_features) for _ in range(2))
    for first in stepped(range(0, len(plan.groups), SLICE), "features", unit="slices"):
        packed = [pipeline.pack(tokens) for tokens in pipeline.tokenize(plan.groups[first : first + SLICE])]
        for group, rows_of_group in zip(plan.groups[first : first + SLICE], packed, strict=True):
            for candidate, reason in rows_of_group.refused.items():
                raise DataError(
                    "training rows", "messages", f"{reason} (the answer '{group.candidates[candidate]:.60}')"
                )
        for batch in batching.batches(batching.units(packed), max_tokens_per_forward):
            arrays = batching.collate(model.layout, batch)
            inputs = {name: torch.from_numpy(a).to(model.device) for name, a in arrays.items()}
            with attention_kernel("auto", model.device.type):
                states = model.features(**inputs)
            rows = [int(starts[first + unit.group]) + row.candidates[0] for unit in batch for row in unit.rows]
            answers[rows], prompts[rows] = (state.cpu() for state in states)
    places = [int(starts[group]) + candidate for row in plan.places for group, candidate in row]
    return Features(answers, prompts, torch.tensor(places))


def ridge(features: Matrix, labels: Matrix, *, seed: int = 0) -> Matrix:
    """Weights (aspects, hidden) of a ridge regression without intercept per aspect, missing labels left out.

    The penalty of each aspect is the one of ``ALPHAS`` with the least squared error on a held-out fifth of its labels.

    Args:
        features: (answers, hidden).
        labels: (answers, aspects), NaN a missing label.
        seed: of the split.

    Raises:
        ConfigError: an aspect with fewer than ten labels.
    """
    linear, selection = require("sklearn.linear_model"), require("sklearn.model_selection")
    weights = []
    for aspect in range(labels.shape[1]):
        known = ~np.isnan(labels[:, aspect])
        if known.sum() < 10:
            raise ConfigError(f"aspect {aspect} has {known.sum()} labels in data.aspects; expected at least 10")
        parts = selection.train_test_split(
            features[known], labels[known, aspect], test_size=HELD_OUT, random_state=seed
        )
        train_x, test_x, train_y, test_y = parts
        models = [linear.Ridge(alpha=alpha, fit_intercept=False).fit(train_x, train_y) for alpha in ALPHAS]
        errors = [float(((model.predict(test_x) - test_y) ** 2).mean()) for model in models]
        weights.append(models[int(np.argmin(errors))].coef_)
    return np.stack(weights)


def decorrelation(aspects: Matrix, verbosity: int, limit: float) -> Matrix:
    """ArmoRM's transform T (aspects, aspects): ``(r T)_j = r_j - p_j r_verbosity``, verbosity itself becoming zero.

    ``p_j`` is the first of ``PENALTIES`` at which the Spearman correlation of aspect j with verbosity is at most
    ``limit``; 1 where none is.

    Args:
        aspects: (answers, aspects) predicted on a reference set.
        verbosity: the column of verbosity.
        limit: correlation that may remain.
    """
    spearman = require("scipy.stats").spearmanr
    transform = np.eye(aspects.shape[1])
    length = aspects[:, verbosity]
    for j in range(aspects.shape[1]):
        tried = (p for p in PENALTIES if spearman(aspects[:, j] - p * length, length).statistic <= limit)
        transform[verbosity, j] -= 1.0 if j == verbosity else next(tried, 1.0)
    return transform


def train_gate(
    model: GatedModel, read: Features, preferences: Sequence[Preference], config: RunConfig
) -> list[dict[str, Any]]:
    """Train the gate by Bradley-Terry on comparisons of the mixed scores; everything else is frozen.

    Returns:
        The log: step and mean loss (nats) since the last entry.
    """
    torch.manual_seed(config.training.seed)
    left, right, targets = _comparisons(preferences)
    gate = armorm_of(config).gate
    optimizer = torch.optim.AdamW(model.gating.parameters(), lr=gate.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, gate.steps)
    history: list[dict[str, Any]] = []
    seen: list[float] = []
    model.train()
    for step in stepped(range(1, gate.steps + 1), "gate"):
        chosen = torch.randint(len(left), (min(gate.batch_pairs, len(left)),))
        rows = [read.places[side[chosen]] for side in (left, right)]
        parts = (read.answers, read.prompts)
        first, second = (model.mix(*(part[r].to(model.device) for part in parts))[:, :1] for r in rows)
        loss = bradley_terry(first - second, targets[chosen].to(model.device)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        seen.append(loss.item())
        if step % max(1, gate.steps // 20) == 0 or step == gate.steps:
            history.append({"step": step, "loss": sum(seen) / len(seen)})
            seen.clear()
    logger.info("gate trained on %d comparisons, last loss %.3f nats", len(left), history[-1]["loss"])
    return history


def armorm_of(config: RunConfig) -> ArmoRMConfig:
    """The model's settings.

    Raises:
        ConfigError: another model.
    """
    if not isinstance(config.model, ArmoRMConfig):
        raise ConfigError(f"expected model.type armorm, got '{config.model.type}'")
    return config.model


def _comparisons(preferences: Sequence[Preference]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the left and of the right answers, and targets (comparisons, 1); ties and missing labels are left out."""
    left, right, targets, start = [], [], [], 0
    for preference in preferences:
        for i, j, target in preference.pairs():
            if target[0] == target[0] and target[0] != 0.5:
                left.append(start + i)
                right.append(start + j)
                targets.append(target[0])
        start += len(preference.candidates)
    if not left:
        raise ConfigError("expected at least one decided comparison in data.train to train the gate, got none")
    return torch.tensor(left), torch.tensor(right), torch.tensor(targets, dtype=torch.float32)[:, None]
