"""LLM-Blender's PairRM, with transformers' configuration (PairRM-hf) or with its own (PairRM, pair-ranker).

Its own configuration names the base model without describing it; DeBERTa-v3's sizes are read off the tensors, the
rest of its architecture is the same in all sizes, so the base model is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import KeyMap
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

DEBERTA: Final = "deberta-v2"
BACKBONE: Final = "pretrained_model"

NAMES: Final = KeyMap(
    {BACKBONE: "backbone", "head_layer.1": "head.dense", "head_layer.4": "head.out"}, (f"{BACKBONE}.pooler.",)
)
MARKERS: Final = {
    "source_prefix_id": "<|source|>",
    "cand1_prefix_id": "<|candidate1|>",
    "cand2_prefix_id": "<|candidate2|>",
}
"""The configuration's name of each marker, and its token."""

LENGTHS: Final = (("source_maxlength", "candidate_maxlength"), ("source_max_length", "candidate_max_length"))
"""Both spellings of the limits of a prompt and of one answer; a row holds a prompt and two answers."""

LENGTH: Final = 2048
EMBEDDINGS: Final = "backbone.embeddings.word_embeddings.weight"


class PairRM(CheckpointFormat):
    """A pair ranker with either configuration."""

    name = "LLM-Blender PairRM"
    about = Description(
        producers="PairRM, PairRM-hf, pair-ranker",
        recognised_by="`ranker_type` is `pairranker`, or tensors `head_layer`",
        head="`head_layer.1`, `head_layer.4`",
        scored="three markers",
    )
    target = "pairrm-hf"
    head_name = "head_layer.4"
    scored_state = "markers"
    needs_known_backbone = False

    def matches(self, files: Files) -> bool:
        """By the ranker's type, or by its head."""
        return files.config.get("ranker_type") == "pairranker" or files.has_tensor("head_layer.")

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """As our own ``ordered_pair``.

        Raises:
            CheckpointError: the tokenizer does not have the markers.
        """
        from transformers import AutoTokenizer
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from ranker.checkpoints.formats.spec import PROMPT_RESERVE, LoadSpec, positions
        from ranker.layouts.ordered_pair import OrderedPair
        from ranker.models import backbones
        from ranker.models.pairwise import PairwiseConfig, PairwiseModel

        shapes = report.tensors
        tokenizer = AutoTokenizer.from_pretrained(folder)
        kind = _family(folder, values, shapes)
        settings = values if "hidden_size" in values else BACKBONES[kind](shapes)
        backbone = CONFIG_MAPPING[kind].from_dict(settings)
        limits = next(((values[a], values[b]) for a, b in LENGTHS if a in values and b in values), None)
        markers = [values.get(name, tokenizer.convert_tokens_to_ids(token)) for name, token in MARKERS.items()]
        if None in markers or tokenizer.unk_token_id in markers or len({*markers}) < len(MARKERS):
            raise CheckpointError(
                f"{folder}: its tokenizer does not have {', '.join(MARKERS.values())} (it gives ids {markers}), so all "
                "texts would be read alike; take the tokenizer that was saved with these weights"
            )
        length = LENGTH if limits is None else limits[0] + 2 * limits[1]
        length = length if kind == DEBERTA else min(length, positions(backbone))
        text = OrderedPair(
            max_length=length,
            prompt_reserve=min(PROMPT_RESERVE, length // 2),
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            pad_id=tokenizer.pad_token_id,
            position_offset=backbones.position_offset(backbone),
            markers=tuple(markers),
            token_types="zero",  # LLM-Blender passes ids and mask alone
        )
        config = PairwiseConfig(
            backbone=backbone.to_dict(),
            text=text.model_dump(),
            num_labels=shapes["head_layer.4.weight"][0],
            head_dropout=float(values.get("drop_out", 0.05)),
        )
        return LoadSpec(config, PairwiseModel, NAMES)

    def write(self, source: Source, folder: Path) -> list[str]:
        """The folder as PairRM-hf's ``DebertaV2PairRM.from_pretrained`` reads it.

        Raises:
            CheckpointError: not the layout ordered_pair on DeBERTa, or markers that the tokenizer cannot have.
        """
        from ranker.checkpoints.formats.spec import plain_config, refused, write
        from ranker.layouts.ordered_pair import OrderedPair
        from ranker.models.pairwise import PairwiseModel

        config = source.config
        ordered_pair = isinstance(source.model, PairwiseModel) and isinstance(config.layout, OrderedPair)
        if not ordered_pair or config.backbone["model_type"] != "deberta-v2":
            raise refused(source, "pairrm-hf", "model.type=ordered_pair on DeBERTa-v2 or v3")
        values = plain_config(source, "DebertaV2PairRM")
        for name in ("backbone", "text", "head_dropout"):
            values.pop(name, None)
        source, markers = with_marker_tokens(source)
        sizes = {"model_type": "deberta-v2", "drop_out": config.head_dropout, "n_tasks": config.num_labels}
        write(source, folder, NAMES, config.backbone | values | markers | sizes)
        return []


def with_marker_tokens(source: Source) -> tuple[Source, dict[str, int]]:
    """The same with the markers as tokens of the tokenizer, and their ids by the configuration's names.

    A tokenizer numbers its tokens without gaps: markers that are further back change places with the rows of the
    embeddings that follow the tokenizer's last token.

    Raises:
        CheckpointError: there are no such rows, or an id is another token's.
    """
    tokenizer, tensors = source.tokenizer, dict(source.tensors)
    ids: dict[str, int] = {}
    missing: dict[str, int] = {}
    rows = tensors[EMBEDDINGS].clone()
    for (name, token), old in zip(MARKERS.items(), source.model.layout.marker_ids, strict=True):
        surface = tokenizer.token(old)
        ids[name] = old if surface is not None else tokenizer.size + len(missing)
        if surface is None:
            missing[token] = ids[name]
        if surface not in (None, token) or ids[name] >= len(rows):
            raise CheckpointError(f"marker {token} has id {old} ('{surface}'), for which this tokenizer has no place")
        rows[[ids[name], old]] = rows[[old, ids[name]]]
    return replace(source, tokenizer=tokenizer.with_tokens(missing), tensors=tensors | {EMBEDDINGS: rows}), ids


def _family(folder: Path, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The backbone's family: PairRM-hf names it as transformers does, LLM-Blender by the beginning of a name.

    Raises:
        CheckpointError: another family than BERT, RoBERTa or DeBERTa.
    """
    if f"{BACKBONE}.encoder.rel_embeddings.weight" in shapes:
        return DEBERTA
    name = str(values.get("model_type"))
    kind = next((kind for kind in ("xlm-roberta", "roberta", "bert") if name.startswith(kind)), None)
    if kind is None or f"{BACKBONE}.embeddings.position_embeddings.weight" not in shapes:
        raise CheckpointError(f"{folder}: expected a pair ranker on {', '.join(BACKBONES)}; got '{name}'")
    return kind


def _bert(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """BERT's configuration with the sizes of these tensors; a head has 64 dimensions."""
    return _sizes(shapes) | {
        "max_position_embeddings": shapes[f"{BACKBONE}.embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes[f"{BACKBONE}.embeddings.token_type_embeddings.weight"][0],
    }


def _roberta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """RoBERTa's: positions count from its padding id."""
    return _bert(shapes) | {"layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    rows, hidden = shapes[f"{BACKBONE}.embeddings.word_embeddings.weight"]
    layer = f"{BACKBONE}.encoder.layer."
    layers = {name.removeprefix(layer).partition(".")[0] for name in shapes if name.startswith(layer)}
    return {
        "vocab_size": rows,
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": shapes[f"{layer}0.intermediate.dense.weight"][0],
    }


def _deberta_v3(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """DeBERTa-v3's configuration (arXiv 2111.09543), with the sizes of these tensors; a head has 64 dimensions."""
    return _sizes(shapes) | {
        "relative_attention": True,
        "position_buckets": shapes[f"{BACKBONE}.encoder.rel_embeddings.weight"][0] // 2,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    }


BACKBONES: Final[dict[str, Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]]]] = {
    DEBERTA: _deberta_v3,
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
"""Families of LLM-Blender's encoders: from the tensors' shapes to a configuration."""
