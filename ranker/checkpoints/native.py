"""Our own folder: ``config.json``, ``model.safetensors``, ``tokenizer.json``. Read strictly, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from transformers.utils import logging as transformers_logging

from ranker.errors import CheckpointError
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.scorer import TorchScorer
from ranker.records import Group
from ranker.text.tokenizer import FILE_NAME, TextTokenizer

WEIGHTS: Final = "model.safetensors"
SAME: Final = 1e-5
"""Largest difference of fp32 logits between a live model and its reloaded checkpoint."""


def save(model: PairwiseModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write a checkpoint that ``load`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / FILE_NAME).write_text(tokenizer.text, encoding="utf-8")


def load(folder: Path) -> tuple[PairwiseModel, TextTokenizer]:
    """Read a checkpoint; every tensor must be there, of the right shape and finite.

    Raises:
        CheckpointError: naming the missing, unexpected, empty or non-finite tensor and what to do.
    """
    config = _config(folder)
    tokenizer = TextTokenizer.from_folder(folder, config.layout.markers)
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in PairwiseModel(config).state_dict().items()}
    check_tensors(folder / WEIGHTS, wanted)
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = PairwiseModel.from_pretrained(folder, dtype=torch.float32)
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


def check_reload(model: PairwiseModel, tokenizer: TextTokenizer, folder: Path, probes: list[Group]) -> float:
    """Load ``folder`` and score ``probes`` with it and with the live model.

    Returns:
        The largest difference in logits.

    Raises:
        CheckpointError: the difference passes ``SAME``, or the checkpoint does not load.
    """
    reloaded = TorchScorer(*load(folder)).score(probes)
    live = TorchScorer(model, tokenizer).score(probes)
    difference = max(
        (float(np.abs(a.scores - b.scores).max()) for a, b in zip(reloaded, live, strict=True) if len(a.scores)),
        default=0.0,
    )
    if not difference <= SAME:
        raise CheckpointError(
            f"{folder}: the saved model scores differently from the live one (by {difference:.2e}, limit {SAME:.0e}); "
            "the checkpoint is not usable"
        )
    return difference


def _config(folder: Path) -> PairwiseConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: expected a checkpoint folder with config.json, found none")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.get("model_type") != PairwiseConfig.model_type:
        raise CheckpointError(
            f"{path}: expected model_type '{PairwiseConfig.model_type}', got '{values.get('model_type')}'"
        )
    config: PairwiseConfig = PairwiseConfig.from_dict(values)
    return config
