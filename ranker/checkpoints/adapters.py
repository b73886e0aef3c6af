"""Adapter folders: peft's two files, our configuration and the tokenizer. The head must be in it, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import safe_open
from transformers import PreTrainedModel

from ranker.config import ModelConfig
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.models.build import start
from ranker.text.tokenizer import TextTokenizer

SETTINGS: Final = "ranker_adapter.json"
WEIGHTS: Final = "adapter_model.safetensors"
PEFT_CONFIG: Final = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / PEFT_CONFIG).is_file() and not (folder / "model.safetensors").is_file()


def save(model: Any, tokenizer: TextTokenizer, config: ModelConfig, folder: Path) -> None:
    """Write an adapter (a ``PeftModel``'s) that ``load`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    complete(tokenizer, config, folder)


def complete(tokenizer: TextTokenizer, config: ModelConfig, folder: Path) -> None:
    """Add to peft's files what is needed to load them again: the model's settings and the tokenizer."""
    (folder / SETTINGS).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def load(folder: Path) -> tuple[PreTrainedModel, TextTokenizer]:
    """The backbone with an adapter that ``save`` wrote merged into it; the head comes from the adapter.

    Raises:
        CheckpointError: the adapter holds no head, or a tensor that is empty or not finite.
        MissingExtraError: peft is not installed.
    """
    check_head(folder)
    model, tokenizer = start(settings(folder))
    adapted = require("peft").PeftModel.from_pretrained(model, folder)
    return adapted.merge_and_unload().eval(), tokenizer


def settings(folder: Path) -> ModelConfig:
    """The settings of the model that an adapter was trained on.

    Raises:
        CheckpointError: there are none.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: expected {SETTINGS}, which ranker train writes beside an adapter; a foreign adapter is merged "
            "by peft's merge_and_unload() and loaded as a whole model"
        )
    return ModelConfig.model_validate_json(path.read_text(encoding="utf-8"))


def check_head(folder: Path) -> None:
    """Refuse an adapter without every module it says it saves whole, or with an empty or non-finite tensor.

    Raises:
        CheckpointError: naming the module or tensor.
    """
    file = folder / WEIGHTS
    modules = json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8")).get("modules_to_save") or []
    if not file.is_file():
        raise CheckpointError(f"{folder}: expected {WEIGHTS}, found none; is the adapter complete?")
    try:
        with safe_open(file, framework="numpy") as tensors:
            found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:
        raise CheckpointError(f"{file}: damaged or truncated ({error}); copy it again from its source") from error
    for module in modules:
        if not any(f".{module}." in f".{name}" for name in found):
            raise CheckpointError(
                f"{file}: the head '{module}' is missing, so it would be newly initialised and the scores noise; "
                "save it with modules_to_save, or train again with: ranker train RECIPE adapter.rank=16"
            )
    for name, tensor in found.items():
        if tensor.size == 0 or not np.isfinite(tensor).all():
            raise CheckpointError(f"{file}: tensor '{name}' is empty or holds NaN; use an earlier checkpoint")
