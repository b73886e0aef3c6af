"""Classifiers of transformers, as saved by TRL, RLHFlow, NeMo-RL, OpenAssistant and sentence-transformers.

One output is a reward, two are reject and accept (log-odds), more are aspects. The number of outputs comes from the
tensors: transformers assumes two for a configuration without ``num_labels``, which is corrected here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.formats.spec import (
    Facts,
    LoadSpec,
    Source,
    outputs,
    plain_config,
    refused,
    text_of,
    write,
    write_json,
)
from ranker.checkpoints.weights import KeyMap
from ranker.config import Pooling
from ranker.errors import CheckpointError
from ranker.models.armorm import GatedModel
from ranker.models.backbones import DECODERS, MEAN_POOLED
from ranker.models.pairwise import PairwiseModel
from ranker.models.pointwise import HEADS, RewardReading, pair_parts, reward_class

IDENTITY: Final = "torch.nn.modules.linear.Identity"
"""The activation with which ``CrossEncoder.predict`` returns raw logits."""

AFTER_END: Final = (
    "padding is the end-of-text token, so transformers scores the token before it, and so does this package; a head "
    "that was trained on the end itself needs a pad_token_id of its own in config.json"
)


NO_TEMPLATE: Final = (
    "its tokenizer has no chat template, so texts are put together as [BOS] prompt, blank line, answer, end of text; "
    "compare with how it was trained"
)


def read(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """A sequence classifier; it is read at the last id that is not padding, as by transformers."""
    spec = classifier(folder, values, facts)
    return before_the_end(spec) if spec.config.model_type in DECODERS else spec


def read_crossencoder(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """A ``CrossEncoder``, which encodes a pair with the tokenizer's pair template, decoders included."""
    spec = classifier(folder, values, facts)
    config = spec.config
    if config.model_type not in DECODERS:
        return spec
    parts = pair_parts(AutoTokenizer.from_pretrained(folder))
    config.ranker["text"] |= {"turn": None, **parts}
    return before_the_end(replace(spec, notes=()))


def read_tokens(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """A token classifier with one label (verl, LLaMA-Factory v1, NeMo-RL's regression), read at the last token.

    Raises:
        CheckpointError: an encoder, which has no last token.
    """
    if values["model_type"] not in DECODERS:
        raise CheckpointError(
            f"{folder}: a token classifier on '{values['model_type']}' scores every token; expected a decoder"
        )
    return classifier(folder, values, facts, bias=f"{facts['head']['name']}.bias" in facts["tensors"])


def classifier(folder: Path, values: dict[str, Any], facts: Facts, *, bias: bool = False) -> LoadSpec:
    """A head of any name on a pooled state or on the last token of the mask.

    Raises:
        CheckpointError: the backbone is not supported.
    """
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    output, labels = outputs(facts["outputs"], facts["labels"])
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    cls = reward_class(config)
    pooling: Pooling = "mean" if getattr(config, "classifier_pooling", None) == "mean" else "first_token"
    config.ranker = {
        "text": text_of(folder, config, output, pooling).model_dump(),
        "head": output,
        "pooling": pooling if config.model_type in HEADS else "last_token",
        "aspects": list(labels) if output == "aspects" else [],
        "head_bias": bias,
        "normalisation": facts["normalisation"],
    }
    head = facts["head"]["name"]
    ours = "classifier" if config.model_type in HEADS else "score"
    names = KeyMap({} if head.partition(".")[0] == ours else {head: ours})
    plain = config.model_type in DECODERS and AutoTokenizer.from_pretrained(folder).chat_template is None
    return LoadSpec(config, cls, names, notes=(NO_TEMPLATE,) if plain else ())


def before_the_end(spec: LoadSpec) -> LoadSpec:
    """Drop the end of text from the suffix if it is the padding token, because the producer does not score it."""
    config = spec.config
    suffix = list(config.ranker["text"]["suffix"])
    pad = config.ranker["text"]["pad_id"] if config.pad_token_id is None else config.pad_token_id
    while suffix and suffix[-1] == pad:
        suffix.pop()
    if suffix == list(config.ranker["text"]["suffix"]):
        return spec
    config.ranker["text"]["suffix"] = suffix
    return replace(spec, notes=(*spec.notes, AFTER_END))


def without_bias(source: Source) -> tuple[Source, list[str]]:
    """The source without the bias of a decoder's head, and a note on it; the bias of the model is set to zero too."""
    if not getattr(source.config, "ranker", {}).get("head_bias"):
        return source, []
    tensors = dict(source.tensors)
    shift = [round(value, 6) for value in tensors.pop("score.bias").flatten().tolist()]
    source.model.score.bias.data.zero_()
    note = f"the head's bias {shift}, which this format has no place for: all scores shift by it"
    return replace(source, tensors=tensors), [note]


def write_hf(source: Source, folder: Path) -> list[str]:
    """The folder as ``AutoModelForSequenceClassification`` or ``AutoModelForSeq2SeqLM`` reads it.

    Raises:
        CheckpointError: transformers has no class for such a model.
    """
    mean = str(source.config.model_type).startswith(MEAN_POOLED)
    if mean or isinstance(source.model, (PairwiseModel, GatedModel)):
        raise refused(source, "hf", "classifiers with transformers' pooling, and encoder-decoders")
    source, notes = without_bias(source)
    values = plain_config(source, type(source.model).__name__)
    write(source, folder, KeyMap({}), values | {"ranker": source.config.ranker | {"head_bias": False}})
    if (generation := getattr(source.model, "generation_config", None)) is not None:
        write_json(folder / "generation_config.json", generation.to_diff_dict())
    return notes


def write_crossencoder(source: Source, folder: Path) -> list[str]:
    """The folder as ``CrossEncoder(path).predict`` reads it, with raw logits as its default.

    Raises:
        CheckpointError: not an encoder that is read at its first token.
    """
    config = source.config
    if not isinstance(source.model, RewardReading) or config.model_type not in HEADS:
        raise refused(source, "crossencoder", "encoder classifiers read at the first token")
    notes = write_hf(source, folder)
    values = plain_config(source, type(source.model).__name__)
    write_json(folder / "config.json", values | {"sentence_transformers": {"activation_fn": IDENTITY}})
    return notes
