"""Adapter folders: peft's two files, our configuration and the tokenizer. The head must be in it, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from ranker.checkpoints import hub
from ranker.checkpoints.foreign.classifiers import classifier
from ranker.checkpoints.formats import Files, head_of
from ranker.checkpoints.inspect import VALUE_HEADS
from ranker.checkpoints.weights import Names, headers, read, weight_files
from ranker.config import ModelConfig
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.models.backbones import DECODERS
from ranker.models.build import start
from ranker.models.reward import attention_options, prepare
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


def load(
    folder: Path, *, head_prefix: str | None = None, allow_pickle: bool = False
) -> tuple[PreTrainedModel, TextTokenizer]:
    """The backbone with an adapter merged into it, in full precision; the head is never newly initialised.

    Args:
        folder: an adapter that ``save`` or any user of peft wrote.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``, for the base model and for a head in a file of its own.

    Raises:
        CheckpointError: neither the adapter nor its base holds a head, a tensor is empty or not finite, or the base
            model is not here.
        MissingExtraError: peft is not installed.
    """
    check_head(folder)
    peft = require("peft")
    config = peft.PeftConfig.from_pretrained(folder)
    if (folder / SETTINGS).is_file():
        model, tokenizer = start(settings(folder))
    else:
        model, tokenizer = foreign_base(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
        _check_places(folder, model)
        config.task_type = config.modules_to_save = None  # the head is in the model, wherever it came from
    adapted = peft.PeftModel.from_pretrained(model, folder, config=config)
    return adapted.merge_and_unload().eval(), tokenizer


def settings(folder: Path) -> ModelConfig:
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
    for module in modules if (folder / SETTINGS).is_file() else ():  # peft's own lists name heads that may not exist
        if not any(f".{module}." in f".{name}" for name in found):
            raise CheckpointError(
                f"{file}: the head '{module}' is missing, so it would be newly initialised and the scores noise; "
                "save it with modules_to_save, or train again with: ranker train RECIPE adapter.rank=16"
            )
    for name, tensor in found.items():
        if tensor.size == 0 or not np.isfinite(tensor).all():
            raise CheckpointError(f"{file}: tensor '{name}' is empty or holds NaN; use an earlier checkpoint")


def foreign_base(folder: Path, *, head_prefix: str | None, allow_pickle: bool) -> tuple[PreTrainedModel, TextTokenizer]:
    """The model that a foreign adapter was trained on, with the head from the adapter, beside it, or in its base.

    Raises:
        CheckpointError: there is no head in any of them, or the base model is not here.
    """
    base = hub.local(json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"] or "")
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    texts = folder if (folder / "tokenizer.json").is_file() else base
    beside = [name for name in VALUE_HEADS if (folder / name).is_file()][:1]
    stored = read(weight_files(base, allow_pickle=allow_pickle), Names({}, ("lm_head.",)))
    added = read([folder / WEIGHTS, *(folder / name for name in beside)], Names({}))
    head, source = _head(folder, base, added, stored, head_prefix)
    weight = source[f"{head}.weight"]
    short = head.rpartition("base_model.model.")[2]
    facts = {
        "outputs": weight.shape[0],
        "labels": list((values.get("id2label") or {}).values()),
        "head": {"name": short},
        "normalisation": {k: values[k] for k in ("mean", "std") if k in values} or None,
    }
    reading = classifier(texts, values, facts, bias=f"{head}.bias" in source and values["model_type"] in DECODERS)
    names = [name for name in stored if name.startswith(f"{short}.")]
    tensors = {str(reading.names.read(name)): tensor for name, tensor in stored.items() if name not in names}
    for part in ("weight", "bias"):
        if f"{head}.{part}" in source:
            tensors[str(reading.names.read(f"{short}.{part}"))] = source[f"{head}.{part}"]
    with torch.device("meta"):
        empty = reading.cls(reading.config)
    wanted = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    whole = f"{empty.base_model_prefix}."  # a bare backbone's names have no prefix
    tensors = {name if name in wanted else whole + name: tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name in wanted}
    for name, shape in wanted.items():
        if name not in tensors:
            raise CheckpointError(f"{base}: tensor '{name}' is missing from the base model and from {folder}")
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(
                f"{base}: tensor '{name}' has shape {list(tensors[name].shape)}, expected {list(shape)}; "
                "take the base model that the adapter was trained on"
            )
    model = reading.cls.from_pretrained(
        None, state_dict=tensors, config=reading.config, dtype=torch.float32, **attention_options(reading.config)
    )
    return prepare(model), TextTokenizer.from_folder(texts, model.layout.markers)


def _head(
    folder: Path, base: Path, added: dict[str, Tensor], stored: dict[str, Tensor], prefix: str | None
) -> tuple[str, dict[str, Tensor]]:
    """The head's name and the tensors it is among: the adapter's first, then its base's.

    Raises:
        CheckpointError: it is in neither.
    """
    for tensors in (added, stored):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        head = head_of(Files({"value_head_prefix": prefix} if prefix else {}, frozenset(), shapes), strict=bool(prefix))
        full = next((n.removesuffix(".weight") for n in shapes if head and n.endswith(f"{head}.weight")), None)
        if full is not None:
            return full, tensors
    raise CheckpointError(
        f"{folder / WEIGHTS}: the adapter holds no head ('{prefix or 'score'}.weight'), and neither does its base "
        f"{base}; it was left out when the adapter was saved. Look for it in the run's full checkpoint "
        "(global_step*, pytorch_model.bin), or train again with modules_to_save=['score']"
    )


def _check_places(folder: Path, model: PreTrainedModel) -> None:
    """Refuse an adapter one of whose updates has no layer in the model; peft would leave it out with a warning."""
    layers = {name for name, _ in model.named_modules()}
    for name in headers(folder / WEIGHTS):
        layer, found, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if found and layer not in layers:
            raise CheckpointError(
                f"{folder / WEIGHTS}: '{name}' updates a layer that {type(model).__name__} has not; wrong base model?"
            )
