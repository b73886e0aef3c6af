"""Our own folder: ``config.json``, ``model.safetensors``, ``tokenizer.json``. Read strictly, written whole."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ranker import atomic, layouts
from ranker.checkpoints import adapters, reference, safety, weights
from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats import words
from ranker.checkpoints.formats.checkpoint_format import OwnFormat
from ranker.checkpoints.formats.registry import recognise
from ranker.checkpoints.formats.spec import LoadSpec, check_reranker, check_vocabulary
from ranker.checkpoints.resolve import resolve
from ranker.checkpoints.weights import Header
from ranker.errors import CheckpointError, ConfigError
from ranker.layouts import Layout
from ranker.layouts.settings import ChatSettings, TextSettings, with_settings
from ranker.models import steamshp
from ranker.models.armorm import GatedConfig, GatedModel
from ranker.models.modules import ModulesConfig, ModulesModel
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.pointwise import JUDGE, RewardReading, attention_options, prepare
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, Scorer
from ranker.text.tokenizer import TextTokenizer

SAME: Final = 1e-5
"""Largest difference of fp32 logits between a live model and its reloaded checkpoint."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, its tokenizer, and what its files said: headers by the model's names (none for adapters), notes."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    headers: Mapping[str, Header]
    notes: tuple[str, ...]


def save(model: PreTrainedModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write a checkpoint that ``load`` reads; other files in the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.output_errors(folder):
        model.save_pretrained(folder)
    tokenizer.save(folder)


def replace(model: PreTrainedModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """``save`` beside ``folder`` and rename: a kill leaves the old checkpoint or the new one, never a part."""
    with atomic.draft_folder(folder) as draft:
        save(model, tokenizer, draft)


def load(
    folder: Path,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    text: TextSettings | None = None,
    **options: Any,
) -> tuple[PreTrainedModel, TextTokenizer]:
    """Read a checkpoint of any known format; every tensor must be there, of the right shape and finite.

    What is read otherwise than a user may expect is warned of.

    Args:
        folder: the checkpoint.
        head_prefix: a foreign head's name, where it is not one of the known ones.
        allow_pickle: whether foreign weights may be pickles, of which only tensors are read.
        text: settings of the text in the place of the checkpoint's.
        options: passed on to ``from_pretrained`` (a quantisation, ``device_map``).

    Raises:
        CheckpointError: naming the missing, unexpected, empty or non-finite tensor and what to do.
    """
    loaded = open_checkpoint(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text, **options)
    for note in loaded.notes:
        warnings.warn(f"{folder}: {note}", stacklevel=2)
    return loaded.model, loaded.tokenizer


def open_checkpoint(
    folder: Path,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    text: TextSettings | None = None,
    **options: Any,
) -> Loaded:
    """``load`` without its warnings, and with what the files said.

    Raises:
        CheckpointError: as ``load``.
    """
    safety.check_folder(folder)
    with safety.foreign(folder):
        return _open(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text, **options)


def _open(
    folder: Path, *, head_prefix: str | None, allow_pickle: bool, text: TextSettings | None, **options: Any
) -> Loaded:
    if adapters.is_adapter(folder):
        if options:
            raise ConfigError(f"{folder}: an adapter is loaded in full precision on one device; merge it: ranker merge")
        model, tokenizer, notes = adapters.load(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
        if text is not None:
            use_text(model.config, text)
        return Loaded(model, tokenizer, {}, notes)
    plan = plan_of(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text)
    spec, tokenizer = plan.spec, plan.tokenizer
    if issubclass(spec.cls, RewardReading):
        options |= attention_options(spec.config)
    elif "quantization_config" in options and issubclass(spec.cls, PairwiseModel | GatedModel | ModulesModel):
        raise ConfigError(
            f"{folder}: quantization is for reward models and encoder-decoders; export it to int8 instead"
        )
    with _quietly():
        # Tensors are renamed here, as the library's key_mapping would turn the names back when the model is saved.
        tensors = weights.read(plan.files, spec.names)
        if spec.answers:
            tensors |= words.head(plan.files, spec)
        filled = spec.cls.from_pretrained(None, state_dict=tensors, config=spec.config, dtype=torch.float32, **options)
    model = prepare(filled)
    for name, tensor in model.state_dict().items():
        stored = spec.names.stored_name(name)
        if tensor.is_meta and "device_map" not in options:
            raise CheckpointError(f"{folder}: tensor '{stored}' was never read: it is on the meta device")
        if not tensor.is_meta and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{folder}: tensor '{stored}' holds NaN or infinity; use an earlier checkpoint")
    return Loaded(model.eval(), tokenizer, plan.headers, spec.notes)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a checkpoint will be read: its headers fit the model, and no weight was read yet."""

    spec: LoadSpec
    layout: Layout
    tokenizer: TextTokenizer
    files: Sequence[Path]
    headers: Mapping[str, Header]


def plan_of(
    folder: Path, *, head_prefix: str | None = None, allow_pickle: bool = False, text: TextSettings | None = None
) -> LoadPlan:
    """Compare a checkpoint's headers with its model, without reading a weight.

    Raises:
        CheckpointError: as ``load``, but for values of tensors.
    """
    safety.check_folder(folder)
    with safety.foreign(folder):
        return _plan_of(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text)


def _plan_of(folder: Path, *, head_prefix: str | None, allow_pickle: bool, text: TextSettings | None) -> LoadPlan:
    text_format = None if text is None else text.format
    spec = resolve(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, text_format=text_format)
    values = safety.read_json(folder / "config.json")
    is_own = isinstance(recognise(Files(values, frozenset(), {})), OwnFormat)
    if not is_own and (text is None or text.format is None):
        check_reranker(folder, spec.config)
    if text is not None:
        use_text(spec.config, text.model_copy(update={"format": None}) if spec.answers else text)
    with torch.device("meta"):
        empty = spec.cls(spec.config)
    tokenizer = TextTokenizer.from_folder(folder, empty.layout.marker_ids)
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    tied = {name: shape for name, shape in shapes.items() if name in empty.all_tied_weights_keys}
    wanted = {name: shape for name, shape in shapes.items() if name not in tied}
    files = weights.weight_files(folder, allow_pickle=allow_pickle, extra=spec.extra)
    names, notes = weights.read_names(spec.names, files, shapes)
    spec = dataclasses.replace(spec, names=names, notes=(*spec.notes, *notes))
    if spec.answers:
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("score.")}
    headers = weights.check(files, names, wanted, tied)
    check_vocabulary(folder, tokenizer, empty)
    if text is None and not is_own:
        spec = dataclasses.replace(spec, notes=(*spec.notes, *reference.notes_on_ids(folder, empty.layout, tokenizer)))
    return LoadPlan(spec, empty.layout, tokenizer, files, headers)


def use_text(config: Any, settings: ChatSettings) -> None:
    """Change the layout that a model's configuration stores.

    Raises:
        ConfigError: a setting that the layout does not have.
    """
    in_section = hasattr(config, "ranker")
    stored = config.ranker["text"] if in_section else config.text
    changed = with_settings(layouts.parse(stored), settings).model_dump(mode="json")
    if in_section:
        config.ranker["text"] = changed
    else:
        config.text = changed


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bar."""
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bar:
            transformers_logging.enable_progress_bar()


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
    """What a manifest says of a model: its type, the names of its outputs, its backbone's family."""
    if isinstance(model.config, PairwiseConfig):
        labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        return {"type": model.layout.layout, "labels": labels, "backbone": model.config.backbone["model_type"]}
    if isinstance(model.config, GatedConfig):
        labels = ["score", *model.config.aspects]
        return {"type": "armorm", "labels": labels, "backbone": model.config.backbone["model_type"]}
    if isinstance(model.config, ModulesConfig):
        labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        return {"type": "pointwise", "labels": labels, "backbone": model.config.backbone["model_type"]}
    if model.config.ranker["head"] == steamshp.HEAD:
        return {"type": "steamshp", "labels": list(steamshp.ANSWERS), "backbone": model.config.model_type}
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    kind = JUDGE if model.config.ranker["head"] == JUDGE else "pointwise"
    return {"type": kind, "labels": labels, "backbone": model.config.model_type}
