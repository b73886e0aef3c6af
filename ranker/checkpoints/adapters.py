"""Adapter folders: peft's two files, our configuration and the tokenizer. The head must be in it, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedModel

from ranker import atomic
from ranker.checkpoints import adapter_settings
from ranker.checkpoints.formats import adapter_base
from ranker.checkpoints.formats.ranker_adapter import SETTINGS
from ranker.checkpoints.inspection import TRUST
from ranker.checkpoints.safety import read_json
from ranker.checkpoints.weights import KeyMap, read
from ranker.config import ModelConfig
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.layouts import Output
from ranker.models.build import new_model
from ranker.text.tokenizer import TextTokenizer

WEIGHTS: Final = "adapter_model.safetensors"
PICKLE: Final = "adapter_model.bin"
PEFT_CONFIG: Final = "adapter_config.json"


class AdapterSettings(BaseModel):
    """The model that an adapter was trained on; written beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig
    output: Output


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / PEFT_CONFIG).is_file() and not (folder / "model.safetensors").is_file()


def save(model: Any, tokenizer: TextTokenizer, config: AdapterSettings, folder: Path) -> None:
    """Write an adapter (a ``PeftModel``'s) that ``load`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.output_errors(folder):
        model.save_pretrained(folder)
    complete(tokenizer, config, folder)


def complete(tokenizer: TextTokenizer, config: AdapterSettings, folder: Path) -> None:
    """Add to peft's files what is needed to load them again: the model's settings and the tokenizer."""
    (folder / SETTINGS).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def load(
    folder: Path, *, head_prefix: str | None = None, allow_pickle: bool = False
) -> tuple[PreTrainedModel, TextTokenizer, tuple[str, ...]]:
    """The backbone with an adapter merged into it, in full precision; the head is never newly initialised.

    Args:
        folder: an adapter that ``save`` or any user of peft wrote.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``, for the adapter, its base model and a head in a file of its own.

    Returns:
        The model, its tokenizer, and what is read otherwise than a user may expect.

    Raises:
        CheckpointError: neither the adapter nor its base holds a head, a tensor is empty or not finite, or the base
            model is not here.
        MissingExtraError: peft is not installed.
    """
    tensors = check_head(folder, allow_pickle=allow_pickle)
    adapter_settings.check(folder / PEFT_CONFIG, read_json(folder / PEFT_CONFIG), tensors)
    library = require("peft")
    config = library.PeftConfig.from_pretrained(folder)
    if (folder / SETTINGS).is_file():
        ours = settings(folder)
        model, tokenizer = new_model(ours.model, ours.output)
        adapted = library.PeftModel.from_pretrained(model, folder, config=config)
        _check_whole(adapted, folder, tensors)
        return adapted.merge_and_unload().eval(), tokenizer, ()
    base = adapter_base.base_of(folder, tensors, head_prefix=head_prefix, allow_pickle=allow_pickle)
    with adapter_base.under_our_names(folder, tensors, base.names) as renamed:
        config = library.PeftConfig.from_pretrained(renamed)
        config.task_type = config.modules_to_save = None  # whole modules are in the model, wherever they came from
        adapted = library.PeftModel.from_pretrained(base.model, renamed, config=config)
        _check_whole(adapted, folder, {adapter_base.our_name(name, base.names): t for name, t in tensors.items()})
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise CheckpointError(
            f"{folder}: an adapter of type {config.peft_type.value} has no weights that can be merged into its base; "
            "adapters of the LoRA family and IA3 are read"
        )
    return adapted.merge_and_unload().eval(), base.tokenizer, base.notes


def _check_whole(adapted: Any, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that lacks a tensor of one of its updates; peft would start it anew.

    Raises:
        CheckpointError: naming the tensor.
    """
    expected = require("peft").get_peft_model_state_dict(adapted, save_embedding_layers=False)
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{folder}: tensor '{missing[0]}' is missing from the adapter ({len(missing)} in all), so it would "
            "be newly initialised; is the adapter complete, and adapter_config.json its own?"
        )


def settings(folder: Path) -> AdapterSettings:
    """The settings of the model that an adapter was trained on.

    Raises:
        CheckpointError: there are none.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: expected {SETTINGS}, which ranker train writes beside an adapter; to train on from a foreign "
            "one, merge it first: ranker merge"
        )
    return AdapterSettings.model_validate_json(path.read_text(encoding="utf-8"))


def check_head(folder: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Refuse an adapter of ours without every module it saves whole, and any with an empty or non-finite tensor.

    Returns:
        The adapter's tensors.

    Raises:
        CheckpointError: naming the module or tensor.
    """
    file = folder / WEIGHTS
    if not file.is_file() and (folder / PICKLE).is_file():
        file = folder / PICKLE
        if not allow_pickle:
            raise CheckpointError(f"{file}: the adapter is a pickle, which can run code when loaded; {TRUST}")
    if not file.is_file():
        raise CheckpointError(f"{folder}: expected {WEIGHTS}, found none; is the adapter complete?")
    modules = json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8")).get("modules_to_save") or []
    tensors = read([file], KeyMap({}))
    for module in modules if (folder / SETTINGS).is_file() else ():  # peft's own lists name heads that may not exist
        if not any(f".{module}." in f".{name}" for name in tensors):
            raise CheckpointError(
                f"{file}: the head '{module}' is missing, so it would be newly initialised and the scores noise; "
                "save it with modules_to_save, or train again with: ranker train RECIPE lora.r=16"
            )
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{file}: tensor '{name}' is empty or holds NaN; use an earlier checkpoint")
    return tensors
