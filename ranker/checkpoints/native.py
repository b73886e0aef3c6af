"""Our own folder: ``config.json``, ``model.safetensors``, ``tokenizer.json``. Read strictly, written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from ranker.checkpoints import adapters, foreign
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
INDEX: Final = "model.safetensors.index.json"
BUFFERS: Final = ("position_ids", "rotary_emb.inv_freq")
"""Ends of names that older libraries saved and newer ones compute."""

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
    config, cls, renamed = _config(folder)
    with torch.device("meta"):
        empty = cls(config)
    tokenizer = TextTokenizer.from_folder(folder, empty.layout.markers)
    tied = empty.all_tied_weights_keys
    wanted = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items() if name not in tied}
    check_tensors(folder, wanted, renamed)
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        options: dict[str, Any] = attention_options(config) if issubclass(cls, RewardReading) else {}
        tensors = renamed_tensors(folder, renamed)
        source = folder if tensors is None else None
        made = cls.from_pretrained(source, state_dict=tensors, config=config, dtype=torch.float32, **options)
        model = prepare(made)
    finally:
        if bar:
            transformers_logging.enable_progress_bar()
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{folder}: tensor '{name}' holds NaN or infinity; use an earlier checkpoint")
    return model.eval(), tokenizer


def convert(source: Path, target: Path) -> None:
    """Write any checkpoint that ``load`` reads as our own folder, which plain transformers loads with the same scores.

    A decoder whose padding is its end-of-text token gets a padding token of its own: the library scores the last token
    that is not padding, and would score the one before the end.

    Raises:
        CheckpointError: as ``load``, or the target exists.
    """
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"{target}: expected a new folder, found files in it; choose another")
    model, tokenizer = load(source)
    if isinstance(model, RewardReading):
        tokenizer = foreign.own_padding(model, source) or tokenizer
    save(model, tokenizer, target)


def renamed_tensors(folder: Path, renamed: Mapping[str, str]) -> dict[str, torch.Tensor] | None:
    """All tensors of a folder under the model's names; None where the names are the model's own.

    The library's ``key_mapping`` would turn the names back when the model is saved.
    """
    if not renamed:
        return None
    tensors = {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
    return {_name(name, renamed): tensor for name, tensor in tensors.items()}


def _name(name: str, renamed: Mapping[str, str]) -> str:
    old = next((old for old in renamed if name.startswith(f"{old}.")), None)
    return name if old is None else renamed[old] + name.removeprefix(old)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one, or the shards that the index names.

    Raises:
        CheckpointError: one of them is not there.
    """
    index = folder / INDEX
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else [WEIGHTS]
    files = [folder / name for name in sorted(set(shards))]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{folder}: expected {file.name}, found none; is the checkpoint complete?")
    return files


def check_tensors(folder: Path, wanted: dict[str, tuple[int, ...]], renamed: Mapping[str, str]) -> None:
    """Compare the headers of a folder's safetensors with the tensors a model has.

    Args:
        folder: the checkpoint.
        wanted: shapes by name, as the model has them.
        renamed: from beginnings of names in the files to those of the model.

    Raises:
        CheckpointError: a tensor is missing, unexpected, empty or of another shape, or a file is damaged.
    """
    found: dict[str, tuple[int, ...]] = {}
    file = folder / WEIGHTS
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="numpy") as tensors:
                found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:
            raise CheckpointError(f"{file}: damaged or truncated ({error}); copy it again from its source") from error
    found = {_name(name, renamed): shape for name, shape in found.items()}
    for name in sorted(set(wanted) - set(found)):
        raise CheckpointError(
            f"{file}: tensor '{name}' is missing, so it would be newly initialised and the scores noise; "
            f"take the checkpoint that still holds it, or train one with: ranker train pairrm"
        )
    for name in sorted(name for name in set(found) - set(wanted) if not name.endswith(BUFFERS)):
        raise CheckpointError(f"{file}: unexpected tensor '{name}'; config.json describes another model")
    for name, shape in found.items():
        if name in wanted and shape != wanted[name]:
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


def _config(folder: Path) -> tuple[PretrainedConfig, type[PreTrainedModel], dict[str, str]]:
    """The configuration, the class that reads it, and how names of tensors change."""
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
            return config_class.from_dict(values), cls, {}
    known = str(family).removeprefix(MEAN_POOLED)
    if "ranker" not in values or known not in CONFIG_MAPPING:
        return foreign.adopt(folder, values)
    base = CONFIG_MAPPING[known]
    config = (base if known == family else mean_pooled(base)).from_dict(values)
    return config, (seq2seq.answer_class if config.ranker["head"] == seq2seq.HEAD else reward_class)(config), {}
