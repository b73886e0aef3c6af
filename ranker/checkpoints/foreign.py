"""Reward models of other trainers, read as ours: one reader per format; outputs are counted in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.inspect import inspect, tensors
from ranker.config import GateConfig, Pooling
from ranker.errors import CheckpointError
from ranker.models import backbones, seq2seq
from ranker.models.gated import GatedConfig, GatedModel
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.reward import DECODERS, HEADS, PAD_TOKEN, reward_class, text_layout
from ranker.models.tokenizers import text_tokenizer
from ranker.text.layout import Output, TextLayout
from ranker.text.tokenizer import TextTokenizer

MAX_LENGTH: Final = 2048
"""Tokens of a row where the checkpoint sets no limit that fits."""

STEAMSHP_LENGTH: Final = 512
PAIRRM_LENGTH: Final = 2048
PAIRRM_MARKERS: Final = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
PROMPT_RESERVE: Final = 64

Facts = Mapping[str, Any]
Adopted = tuple[PretrainedConfig, type[PreTrainedModel], dict[str, str]]
"""Our configuration, the class that reads it, and from beginnings of names in the files to those of the model."""


def adopt(folder: Path, values: dict[str, Any]) -> Adopted:
    """How a foreign checkpoint is read.

    Args:
        folder: the checkpoint.
        values: its ``config.json``.

    Raises:
        CheckpointError: a format that is not read, a head that is not there, or a backbone that is not supported.
    """
    facts = inspect(folder)
    damaged = [p for p in facts["problems"] if "no head" in p["what"]]
    if facts["format"] not in READERS or damaged:
        reason = "; ".join(f"{p['what']} ({p['repair']})" for p in damaged or facts["problems"][:1])
        raise CheckpointError(
            f"{folder}: format '{facts['format']}' is not read as a reward model{': ' if reason else ''}{reason}; "
            f"expected ours, or {', '.join(READERS)}; see: ranker inspect {folder}"
        )
    if facts["format"] != "LLM-Blender PairRM" and values["model_type"] not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder}: backbone '{values['model_type']}' is not known to transformers; see: ranker inspect {folder}"
        )
    return READERS[facts["format"]](folder, values, facts)


def _classifier(folder: Path, values: dict[str, Any], facts: Facts) -> Adopted:
    """A sequence classifier: one output is a reward, two are reject and accept (log-odds), more are aspects.

    The outputs are the head's own: a configuration without ``num_labels`` means two to the library, and is corrected.
    """
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    output, labels = _outputs(facts["outputs"], facts["labels"])
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    cls = reward_class(config)
    pooling: Pooling = "mean" if getattr(config, "classifier_pooling", None) == "mean" else "first_token"
    config.ranker = {
        "text": _text(folder, config, output, pooling).model_dump(),
        "head": output,
        "pooling": pooling if config.model_type in HEADS else "last_token",
        "aspects": list(labels) if output == "aspects" else [],
    }
    head = facts["head"]["name"]
    ours = "classifier" if config.model_type in HEADS else "score"
    return config, cls, {} if head.partition(".")[0] == ours else {head: ours}


def _steamshp(folder: Path, values: dict[str, Any], _: Facts) -> Adopted:
    """SteamSHP and any other T5 that answers A or B; it has no head of its own."""
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config.ranker = seq2seq.settings(tokenizer, STEAMSHP_LENGTH, PROMPT_RESERVE)
    return config, seq2seq.answer_class(config), {}


def _armorm(folder: Path, values: dict[str, Any], facts: Facts) -> Adopted:
    """ArmoRM, whose tensors have our names; the gate's size is that of its tensors."""
    shapes = tensors(folder, [])[0]
    layers = sorted(name for name in shapes if name.startswith("gating.layers.") and name.endswith(".weight"))
    gate = GateConfig(
        hidden=shapes[layers[0]][0],
        layers=len(layers) - 1,
        temperature=float(values.get("gating_temperature", 10.0)),
    )
    backbone = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    _, labels = _outputs(facts["outputs"], facts["labels"])
    text = _text(folder, backbone, "gated", "first_token")
    config = GatedConfig(
        backbone=backbone.to_dict(),
        text=text.model_dump(),
        aspects=labels,
        gate=gate.model_dump(),
        pooling="last_token",
    )
    return config, GatedModel, {}


def _pairrm(folder: Path, values: dict[str, Any], facts: Facts) -> Adopted:
    """LLM-Blender's PairRM, with transformers' configuration (PairRM-hf) or with its own (PairRM, pair-ranker).

    Its own configuration names the base model without describing it; DeBERTa-v3's sizes are read off the tensors, the
    rest of its architecture is the same in all sizes, so the base model is not needed.
    """
    shapes = tensors(folder, [])[0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backbone = CONFIG_MAPPING["deberta-v2"].from_dict(values if "hidden_size" in values else _deberta_v3(shapes))
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
    given = [values.get(name) for name in names]
    markers = [
        tokenizer.convert_tokens_to_ids(m) if i is None else i for m, i in zip(PAIRRM_MARKERS, given, strict=True)
    ]
    text = TextLayout(
        layout="published",
        max_length=PAIRRM_LENGTH,
        prompt_reserve=PROMPT_RESERVE,
        cls_id=tokenizer.cls_token_id,
        sep_id=tokenizer.sep_token_id,
        pad_id=tokenizer.pad_token_id,
        markers=tuple(markers),
    )
    config = PairwiseConfig(
        backbone=backbone.to_dict(), text=text.model_dump(), n_tasks=shapes["head_layer.4.weight"][0],
        head_dropout=float(values.get("drop_out", 0.05)),
    )  # fmt: skip
    return (
        config,
        PairwiseModel,
        {"pretrained_model": "backbone", "head_layer.1": "head.dense", "head_layer.4": "head.out"},
    )


def _deberta_v3(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """DeBERTa-v3's configuration (arXiv 2111.09543), with the sizes of these tensors; a head has 64 dimensions."""
    rows, hidden = shapes["pretrained_model.embeddings.word_embeddings.weight"]
    layer = "pretrained_model.encoder.layer."
    layers = {name.removeprefix(layer).partition(".")[0] for name in shapes if name.startswith(layer)}
    buckets = shapes["pretrained_model.encoder.rel_embeddings.weight"][0] // 2
    return {
        "vocab_size": rows,
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": shapes[f"{layer}0.intermediate.dense.weight"][0],
        "relative_attention": True,
        "position_buckets": buckets,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    }


READERS: Final[dict[str, Callable[[Path, dict[str, Any], Facts], Adopted]]] = {
    "HF sequence classification": _classifier,
    "sentence-transformers CrossEncoder": _classifier,
    "OpenRLHF": _classifier,
    "T5 (SteamSHP)": _steamshp,
    "ArmoRM": _armorm,
    "LLM-Blender PairRM": _pairrm,
}
"""The formats that are read, by their names in ``formats.FORMATS``."""


def _text(folder: Path, config: PretrainedConfig, output: Output, pooling: Pooling) -> TextLayout:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id  # the mask decides what is read, never this id
    limit = min(MAX_LENGTH, int(tokenizer.model_max_length), _positions(config))
    reserve = min(PROMPT_RESERVE, limit // 2)
    return text_layout(tokenizer, config, output=output, pooling=pooling, max_length=limit, prompt_reserve=reserve)


def own_padding(model: Any, folder: Path) -> TextTokenizer | None:
    """Give a decoder reward model that pads with its end-of-text token a padding token of its own.

    Returns:
        The tokenizer with it; None where nothing had to change.
    """
    config = model.config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {tokenizer.eos_token_id, *_ids(config.eos_token_id)}
    if config.model_type not in DECODERS or config.pad_token_id not in (None, *ends):
        return None
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    model.resize_token_embeddings(max(config.vocab_size, len(tokenizer)))
    config.pad_token_id = tokenizer.pad_token_id
    config.ranker["text"]["pad_id"] = tokenizer.pad_token_id
    return text_tokenizer(tokenizer)


def _ids(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _outputs(rows: int, named: list[str]) -> tuple[Output, tuple[str, ...]]:
    if rows == 1:
        return "tasks", ("reward",)
    if rows == 2:
        return "classes", ("reject", "accept")
    return "aspects", tuple(named) if len(named) == rows else tuple(f"aspect {i}" for i in range(rows))


def _positions(config: PretrainedConfig) -> int:
    """Positions that a row may have; purely relative ones have no limit."""
    if not getattr(config, "position_biased_input", True):
        return MAX_LENGTH
    return int(config.max_position_embeddings) - backbones.position_offset(config)
