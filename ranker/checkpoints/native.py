"""Our own folder: ``config.json``, ``model.safetensors``, ``tokenizer.json``. Read strictly, written whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from ranker.checkpoints import adapters
from ranker.errors import CheckpointError
from ranker.models import seq2seq
from ranker.models.backbones import MEAN_POOLED
from ranker.models.gated import GatedConfig, GatedModel
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.reward import RewardReading, attention_options, mean_pooled, prepare, reward_class
from ranker.models.scorer import TorchScorer
from ranker.records import Group
from ranker.scorer import GroupScores, Scorer
from ranker.text.tokenizer import TextTokenizer

WEIGHTS: Final = "model.safetensors"
SAME: Final = 1e-5
"""Largest difference of fp32 logits between a live model and its reloaded checkpoint."""


def save(model: PreTrainedModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write a checkpoint that ``load`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(folder)


def load(folder: Path) -> tuple[PreTrainedModel, TextTokenizer]:
    """Read a checkpoint; every tensor must be there, of the right shape and finite.

    Raises:
        CheckpointError: naming the missing, unexpected, empty or non-finite tensor and what to do.
    """
    if adapters.is_adapter(folder):
        return adapters.load(folder)
    config, cls = _config(folder)
    with torch.device("meta"):
        empty = cls(config)
    tokenizer = TextTokenizer.from_folder(folder, empty.layout.markers)
    tied = empty.all_tied_weights_keys
    wanted = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items() if name not in tied}
    check_tensors(folder / WEIGHTS, wanted)
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        options: dict[str, Any] = attention_options(config) if issubclass(cls, RewardReading) else {}
        model = prepare(cls.from_pretrained(folder, config=config, dtype=torch.float32, **options))
    finally:
        if bar:
            transformers_logging.enable_progress_bar()
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{folder}: tensor '{name}' holds NaN or infinity; use an earlier checkpoint")
    return model.eval(), tokenizer


def check_tensors(file: Path, wanted: dict[str, tuple[int, ...]]) -> None:
    """Compare a safetensors header with the tensors a model has.

    Raises:
        CheckpointError: a tensor is missing, unexpected, empty or of another shape, or the file is damaged.
    """
    if not file.is_file():
        raise CheckpointError(f"{file.parent}: expected {file.name}, found none; is the checkpoint complete?")
    try:
        with safe_open(file, framework="numpy") as tensors:
            found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:
        raise CheckpointError(f"{file}: damaged or truncated ({error}); copy it again from its source") from error
    for name in sorted(set(wanted) - set(found)):
        raise CheckpointError(
            f"{file}: tensor '{name}' is missing, so it would be newly initialised and the scores noise; "
            f"take the checkpoint that still holds it, or train one with: ranker train pairrm"
        )
    for name in sorted(set(found) - set(wanted)):
        raise CheckpointError(f"{file}: unexpected tensor '{name}'; config.json describes another model")
    for name, shape in found.items():
        if shape != wanted[name]:
            raise CheckpointError(f"{file}: tensor '{name}' has shape {list(shape)}, expected {list(wanted[name])}")


def check_reload(live: Scorer, folder: Path, probes: Sequence[Group], *, limit: float = SAME) -> float:
    """Load ``folder`` and score ``probes`` with it and with the live model.

    Returns:
        The largest difference in logits.

    Raises:
        CheckpointError: the difference passes ``limit``, or the checkpoint does not load.
    """
    return compare(live.score(probes), TorchScorer(*load(folder)).score(probes), folder, limit=limit)


def compare(
    live: Sequence[GroupScores], reloaded: Sequence[GroupScores], folder: Path, *, limit: float = SAME
) -> float:
    """The largest difference between scores of a live model and of its checkpoint.

    Raises:
        CheckpointError: it passes ``limit``, times the largest score where that is above 1.
    """
    difference = max(
        (float(np.abs(a.scores - b.scores).max()) for a, b in zip(reloaded, live, strict=True) if len(a.scores)),
        default=0.0,
    )
    scale = max((float(np.abs(a.scores).max()) for a in live if len(a.scores)), default=0.0)
    if not difference <= limit * max(1.0, scale):
        raise CheckpointError(
            f"{folder}: the saved model scores differently from the live one (by {difference:.2e}, limit {limit:.0e}); "
            "the checkpoint is not usable"
        )
    return difference


def facts(model: PreTrainedModel) -> dict[str, Any]:
    """What a manifest says of a model: its scheme, the names of its outputs, its backbone's family."""
    if isinstance(model.config, PairwiseConfig):
        labels = [f"task {i}" for i in range(model.config.n_tasks)]
        return {"scheme": "pairwise", "labels": labels, "backbone": model.config.backbone["model_type"]}
    if isinstance(model.config, GatedConfig):
        labels = ["score", *model.config.aspects]
        return {"scheme": "gated", "labels": labels, "backbone": model.config.backbone["model_type"]}
    if model.config.ranker["head"] == seq2seq.HEAD:
        return {"scheme": "seq2seq", "labels": list(seq2seq.ANSWERS), "backbone": model.config.model_type}
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return {"scheme": "reward", "labels": labels, "backbone": model.config.model_type}


def _config(folder: Path) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """The configuration and the class that reads it."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: expected a checkpoint folder with config.json, found none")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); copy the checkpoint again from its source") from error
    family = values.get("model_type")
    for config_class, cls in ((PairwiseConfig, PairwiseModel), (GatedConfig, GatedModel)):
        if family == config_class.model_type:
            return config_class.from_dict(values), cls
    known = str(family).removeprefix(MEAN_POOLED)
    if "ranker" not in values or known not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{path}: expected a checkpoint written by ranker train (model_type '{PairwiseConfig.model_type}', or a "
            f"'ranker' section), got model_type '{family}'"
        )
    foreign = CONFIG_MAPPING[known]
    config = (foreign if known == family else mean_pooled(foreign)).from_dict(values)
    return config, (seq2seq.answer_class if config.ranker["head"] == seq2seq.HEAD else reward_class)(config)
