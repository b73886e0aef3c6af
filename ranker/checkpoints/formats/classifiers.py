"""What formats of classifiers share: the head on a pooled state, the end of a text, the library's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker import layouts
from ranker.checkpoints.formats.spec import (
    MAX_LENGTH,
    UNLIMITED,
    LoadSpec,
    Source,
    StoredHead,
    outputs,
    plain_config,
    positions,
    refused,
    text_of,
    write,
    write_json,
)
from ranker.checkpoints.weights import KeyMap
from ranker.config import Pooling
from ranker.models.armorm import GatedModel
from ranker.models.backbones import DECODERS, MEAN_POOLED
from ranker.models.modules import ModulesModel
from ranker.models.pairwise import PairwiseModel
from ranker.models.pointwise import HEADS, last_read_id, reward_class
from ranker.text.tokenizer import TextTokenizer

AFTER_END: Final = (
    "padding is the end-of-text token, so transformers scores the token before it, and so does this package; a head "
    "that was trained on the end itself needs a pad_token_id of its own in config.json"
)


NO_TEMPLATE: Final = (
    "its tokenizer has no chat template, so texts are put together as {} does; compare with how it was trained"
)


SHORTER: Final = (
    "its tokenizer sets no model_max_length, so rows are cut at {} tokens, of the {} that the model has positions for; "
    "text={{'max_length': ...}} changes it"
)


def classifier(folder: Path, values: dict[str, Any], head: StoredHead, *, without_template: str = "trl") -> LoadSpec:
    """A head on a pooled state or on the last token of the mask, whatever it is called.

    Args:
        folder: where the tokenizer is.
        values: the configuration of the checkpoint, or of an adapter's base.
        head: as the files have it.
        without_template: the text format of a decoder whose tokenizer has no chat template.

    Raises:
        CheckpointError: the backbone is not supported.
    """
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    output, labels = outputs(head.outputs, head.labels)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    cls = reward_class(config)
    pooling: Pooling = "mean" if getattr(config, "classifier_pooling", None) == "mean" else "first_token"
    config.ranker = {
        "text": text_of(folder, config, output, pooling, without_template).model_dump(mode="json"),
        "head": output,
        "pooling": pooling if config.model_type in HEADS else "last_token",
        "aspects": list(labels) if output == "aspects" else [],
        "head_bias": head.has_bias,
        "normalisation": None if head.normalisation is None else dict(head.normalisation),
    }
    ours = "classifier" if config.model_type in HEADS else "score"
    names = KeyMap({} if head.name.partition(".")[0] == ours else {head.name: ours})
    plain = config.model_type in DECODERS and AutoTokenizer.from_pretrained(folder).chat_template is None
    notes = [NO_TEMPLATE.format(without_template)] if plain else []
    limit, most = config.ranker["text"]["max_length"], positions(config)
    if limit == MAX_LENGTH < most < UNLIMITED:
        notes.append(SHORTER.format(limit, most))
    return LoadSpec(config, cls, names, notes=tuple(notes))


def before_the_end(spec: LoadSpec, folder: Path) -> LoadSpec:
    """The same where padding is the end-of-text token: the library scores the last token that is not padding."""
    pad, text = spec.config.pad_token_id, spec.config.ranker["text"]
    if pad is None:  # the library scores the last token of a row
        return spec
    if "chat" in text:
        ends_with_pad = last_id(spec, TextTokenizer.from_folder(folder)) == pad
        text["chat"]["skipped_ends"] = [pad]
        return replace(spec, notes=(*spec.notes, AFTER_END)) if ends_with_pad else spec
    suffix = list(text["suffix"])
    while suffix and suffix[-1] == pad:
        suffix.pop()
    if suffix == list(text["suffix"]):
        return spec
    text["suffix"] = suffix
    return replace(spec, notes=(*spec.notes, AFTER_END))


def last_id(spec: LoadSpec, tokenizer: TextTokenizer) -> int | None:
    """The id that rows end with, where they are not cut; None where the chat template refuses a plain question."""
    return last_read_id(layouts.parse(spec.config.ranker["text"]), tokenizer)


def without_bias(source: Source) -> tuple[Source, list[str]]:
    """The same without the bias of a decoder's head, and what that changes; the model itself loses it too."""
    if not getattr(source.config, "ranker", {}).get("head_bias"):
        return source, []
    tensors = dict(source.tensors)
    shift = [round(value, 6) for value in tensors.pop("score.bias").flatten().tolist()]
    source.model.score.bias.data.zero_()
    note = f"the head's bias {shift}, which heads of decoders have not in this format: all scores shift by it"
    return replace(source, tensors=tensors), [note]


def write_for_transformers(source: Source, folder: Path) -> list[str]:
    """The folder as ``AutoModelForSequenceClassification`` or ``AutoModelForSeq2SeqLM`` reads it.

    Raises:
        CheckpointError: the library has no class for such a model.
    """
    mean = str(source.config.model_type).startswith(MEAN_POOLED)
    if mean or isinstance(source.model, (PairwiseModel, GatedModel, ModulesModel)):
        raise refused(
            source, "hf", "pointwise models with the pooling that transformers computes, and encoder-decoders"
        )
    source, notes = without_bias(source)
    values = plain_config(source, type(source.model).__name__)
    write(source, folder, KeyMap({}), values | {"ranker": source.config.ranker | {"head_bias": False}})
    if (generation := getattr(source.model, "generation_config", None)) is not None:
        write_json(folder / "generation_config.json", generation.to_diff_dict())
    return notes
