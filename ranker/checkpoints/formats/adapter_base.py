"""Adapters of peft on reward models of other trainers: base, head (wherever it is) and all modules saved whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints import hub
from ranker.checkpoints.detection import EMBEDDINGS, Files, bare, head_of
from ranker.checkpoints.formats.classifiers import before_the_end, classifier
from ranker.checkpoints.formats.openrlhf import OpenRLHF, ended
from ranker.checkpoints.formats.registry import recognise
from ranker.checkpoints.formats.spec import StoredHead, check_vocabulary
from ranker.checkpoints.inspection import ADAPTERS, TRUST, VALUE_HEADS
from ranker.checkpoints.reference import notes_on_ids
from ranker.checkpoints.safety import check_folder, read_json
from ranker.checkpoints.weights import KeyMap, read, weight_files
from ranker.errors import CheckpointError
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import attention_options, prepare
from ranker.text.tokenizer import TextTokenizer

SEQUENCE_CLASSIFIER: Final = "SEQ_CLS"
PEFT: Final = "base_model.model."
"""What peft puts before the names of the model that it adapts."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model of an adapter without the low-rank updates, its tokenizer, how its tensors are named, and notes."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    names: KeyMap
    notes: tuple[str, ...]


def base_of(folder: Path, adapter: Mapping[str, Tensor], *, head_prefix: str | None, allow_pickle: bool) -> Base:
    """The model that an adapter was trained on, with every module that the adapter holds whole already in place.

    The head comes from the adapter, from a file beside it (LLaMA-Factory), or from a base that is a reward model.

    Args:
        folder: the adapter.
        adapter: its tensors.
        head_prefix: the head's name, where it is not one of the known ones.
        allow_pickle: whether the base and a head beside the adapter may be pickles.

    Raises:
        CheckpointError: there is no head in any of them, a tensor does not fit, or the base model is not here.
    """
    settings = read_json(folder / "adapter_config.json")
    base, values = _base(folder, settings, allow_pickle)
    stored = {
        bare(name): tensor for name, tensor in read(weight_files(base, allow_pickle=allow_pickle), KeyMap({})).items()
    }
    whole = {bare(name): tensor for name, tensor in adapter.items() if ".lora_" not in name}
    whole |= _beside(folder, allow_pickle)
    head = _head(whole, head_prefix) or _head(stored, head_prefix)
    if head is None:
        raise CheckpointError(
            f"{folder}: the adapter holds no head ('{head_prefix or 'score'}.weight'), and neither does its base "
            f"{base}; it was left out when the adapter was saved. Look for it in the run's full checkpoint "
            "(global_step*, pytorch_model.bin), or train again with modules_to_save=['score']"
        )
    tensors = stored | whole
    words = next((tensor for t in (whole, stored) for name, tensor in t.items() if name.endswith(EMBEDDINGS)), None)
    stored_head = StoredHead(
        head,
        tensors[f"{head}.weight"].shape[0],
        tuple((values.get("id2label") or {}).values()),
        has_bias=f"{head}.bias" in tensors and values["model_type"] in DECODERS,
        normalisation={name: values[name] for name in ("mean", "std") if name in values} or None,
    )
    if words is not None:
        values["vocab_size"] = words.shape[0]  # tokens may have been added with the adapter
    texts = folder if (folder / "tokenizer.json").is_file() else base
    spec = classifier(texts, values, stored_head)
    if values["model_type"] in DECODERS:
        shapes_of_all = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if isinstance(recognise(Files(values, frozenset(), shapes_of_all)), OpenRLHF):
            spec = ended(spec)
        elif settings.get("task_type") == SEQUENCE_CLASSIFIER:
            spec = before_the_end(spec, texts)
    with torch.device("meta"):
        empty = spec.cls(spec.config)
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    state = _fitted(base, folder, {str(spec.names.model_name(n)): t for n, t in tensors.items()}, shapes, empty)
    _check_places(folder, adapter, empty, spec.names)
    model = spec.cls.from_pretrained(
        None, state_dict=state, config=spec.config, dtype=torch.float32, **attention_options(spec.config)
    )
    tokenizer = TextTokenizer.from_folder(texts, model.layout.marker_ids)
    check_vocabulary(texts, tokenizer, model)
    notes = (*spec.notes, *notes_on_ids(texts, model.layout, tokenizer))
    return Base(prepare(model), tokenizer, spec.names, notes)


def _base(folder: Path, settings: Mapping[str, Any], allow_pickle: bool) -> tuple[Path, dict[str, Any]]:
    name = settings.get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise CheckpointError(
            f"{folder}: adapter_config.json does not name its base model; write its folder or hub name to "
            "base_model_name_or_path"
        )
    base = hub.local(name, allow_pickle=allow_pickle)
    config = base / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{base}: the adapter's base model has no config.json; is it complete?")
    check_folder(base)
    values = read_json(config)
    if values.get("model_type") not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{base}: the base's model type '{values.get('model_type')}' is not known to transformers"
        )
    if "quantization_config" in values:
        raise CheckpointError(
            f"{base}: the base model is stored quantised; write its full-precision original to base_model_name_or_path"
        )
    return base, values


def _beside(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """LLaMA-Factory's head in a file of its own."""
    for name in VALUE_HEADS:
        if (folder / name).is_file():
            if name.endswith(".bin") and not allow_pickle:
                raise CheckpointError(f"{folder / name}: the head is a pickle, which can run code when loaded; {TRUST}")
            return read([folder / name], KeyMap({}))
    return {}


def _head(tensors: Mapping[str, Tensor], prefix: str | None) -> str | None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return head_of(Files({}, frozenset(), shapes), prefix=prefix)


def _fitted(
    base: Path,
    folder: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    empty: PreTrainedModel,
) -> dict[str, Tensor]:
    """The tensors that the model has, under its names; a bare backbone's have no prefix.

    Raises:
        CheckpointError: one is missing or of another shape.
    """
    prefix = f"{empty.base_model_prefix}."
    renamed = {name if name in shapes else prefix + name: tensor for name, tensor in tensors.items()}
    for name, shape in shapes.items():
        if name not in renamed:
            raise CheckpointError(f"{base}: tensor '{name}' is missing from the base model and from {folder}")
        if tuple(renamed[name].shape) != shape:
            raise CheckpointError(
                f"{base}: tensor '{name}' has shape {list(renamed[name].shape)}, expected {list(shape)}; "
                "take the base model and the tokenizer that the adapter was trained with"
            )
    return {name: tensor for name, tensor in renamed.items() if name in shapes}


@contextmanager
def under_our_names(folder: Path, adapter: Mapping[str, Tensor], names: KeyMap) -> Iterator[Path]:
    """The adapter's folder, or a copy whose head has our name where the adapter updates a head of another name."""
    renamed = {our_name(name, names): tensor for name, tensor in adapter.items()}
    if set(renamed) == set(adapter):
        yield folder
        return
    with TemporaryDirectory() as copy:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        targets = settings.get("target_modules")
        if isinstance(targets, list):
            settings["target_modules"] = [names.model_name(target) for target in targets]
        settings["modules_to_save"] = None
        (Path(copy) / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, Path(copy) / ADAPTERS[0])
        yield Path(copy)


def our_name(name: str, names: KeyMap) -> str:
    """The name of an adapter's tensor where its model has our names."""
    return PEFT + str(names.model_name(name.removeprefix(PEFT))) if name.startswith(PEFT) else name


def _check_places(folder: Path, adapter: Mapping[str, Tensor], model: PreTrainedModel, names: KeyMap) -> None:
    """Refuse an adapter one of whose updates has no layer in the model; peft would leave it out with a warning."""
    layers = {name for name, _ in model.named_modules()}
    for name in adapter:
        layer, lora, _ = our_name(name, names).removeprefix(PEFT).partition(".lora_")
        if lora and layer not in layers:
            raise CheckpointError(
                f"{folder}: '{name}' updates a layer that {type(model).__name__} has not; wrong base model?"
            )
