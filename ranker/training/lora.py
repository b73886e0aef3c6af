"""LoRA and QLoRA through peft: the backbone's linear layers are adapted, the head is trained and saved whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ranker.checkpoints import adapters as folders
from ranker.checkpoints.adapters import AdapterSettings
from ranker.config import LoraConfig, ModelConfig
from ranker.errors import ConfigError
from ranker.extras import require
from ranker.models.backbones import quantization
from ranker.models.heads import HEAD_MODULES
from ranker.models.pairwise import PairwiseModel

FROZEN_HEADS = ("lm_head",)
"""Heads that come with the backbone; they stay as they are."""


def options(config: LoraConfig | None, model: ModelConfig) -> dict[str, Any]:
    """Options of ``from_pretrained``: the quantisation of the frozen weights; heads are never quantised.

    Raises:
        ConfigError: a quantisation without an adapter, or of a model that has no use for it.
        MissingExtraError: bitsandbytes is not installed.
    """
    if config is None:
        return {}
    if config.quantization != "none" and model.type not in ("pointwise", "steamshp"):
        raise ConfigError(f"lora.quantization is for model.type pointwise or steamshp, got '{model.type}'")
    return quantization(config.quantization)


def attach(model: PreTrainedModel, config: LoraConfig, settings: AdapterSettings) -> Any:
    """The model with trainable low-rank updates on its linear layers and a head that trains as it is.

    Args:
        model: a model with its backbone in place.
        config: rank and targets; ``continue_from`` continues the training of a saved adapter.
        settings: the model's settings; an adapter that is continued must have been trained with the same.

    Returns:
        A ``peft.PeftModel`` around ``model``, whose modules are changed in place.

    Raises:
        ConfigError: ``lora.target_modules`` names no linear layer of the backbone, or ``continue_from`` another model.
        CheckpointError: the adapter to continue is incomplete or holds no head.
    """
    peft = require("peft")
    if config.continue_from is not None:
        check_continued(Path(config.continue_from), config, settings)
        return peft.PeftModel.from_pretrained(model, config.continue_from, is_trainable=True)
    linears = linear_layers(model)
    wanted = [name for name in linears if not config.target_modules or name.rpartition(".")[2] in config.target_modules]
    if not wanted:
        known = sorted({name.rpartition(".")[2] for name in linears})
        raise ConfigError(
            f"lora.target_modules {', '.join(config.target_modules)}: expected some of {', '.join(known)}"
        )
    lora = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        bias="none",
        target_modules=wanted,
        modules_to_save=heads(model) or None,
        trainable_token_indices=_new_tokens(model),
    )
    lora.base_model_name_or_path = settings.model.name_or_path
    return peft.get_peft_model(model, lora)


def check_continued(folder: Path, config: LoraConfig, settings: AdapterSettings) -> None:
    """Refuse to go on with an adapter of another model or rank, or without its head.

    Raises:
        ConfigError: naming the settings that differ.
        CheckpointError: the adapter is incomplete or holds no head.
    """
    before = folders.settings(folder)
    folders.check_head(folder)
    now, then = settings.model.model_dump(), before.model.model_dump()
    differing = [f"model.{name} was {then.get(name)}" for name in now if now[name] != then.get(name)]
    if settings.output != before.output:
        differing.append(f"its output was {before.output}")
    rank = json.loads((folder / folders.PEFT_CONFIG).read_text(encoding="utf-8"))["r"]
    if rank != config.r:
        differing.append(f"lora.r was {rank}")
    if differing:
        raise ConfigError(f"lora.continue_from {folder}: {'; '.join(differing)}; expected the same settings")


def heads(model: PreTrainedModel) -> list[str]:
    """Full names of the outermost modules of the head, which are trained and saved whole."""
    outermost: list[str] = []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last not in HEAD_MODULES or last in FROZEN_HEADS or module is None:
            continue
        if not any(name.startswith(f"{outer}.") for outer in outermost):
            outermost.append(name)
    return outermost


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Full names of the backbone's linear layers, heads excluded (GPT-2 has ``Conv1D`` in their place)."""
    excluded = (*heads(model), *FROZEN_HEADS)
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and not any(name == head or name.startswith(f"{head}.") for head in excluded)
    ]


def _new_tokens(model: PreTrainedModel) -> dict[str, list[int]] | None:
    """The rows of new markers in the embedding table, which must train and be saved too."""
    if not isinstance(model, PairwiseModel) or not model.layout.marker_ids:
        return None
    table = model.backbone.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    return {name: list(model.layout.marker_ids)}
