"""Encoders that read a block mask: one small function per family, chosen by the config's ``model_type``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModel, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from ranker.config import Quantization
from ranker.errors import CheckpointError, ConfigError
from ranker.extras import require
from ranker.models.attention import last_layer
from ranker.models.attention.blocks import NAME
from ranker.models.attention.disentangled import BlockDisentangledAttention, relations, relations_without_padding
from ranker.models.attention.padding_free import PADDING_FREE, Segments, kernel_options, segments_of
from ranker.models.attention.position_bias import (
    RowBiases,
    layer_output,
    layer_output_without_padding,
    position_bias,
)
from ranker.models.attention.reading import Reading
from ranker.models.heads import HEAD_MODULES

logger = logging.getLogger(__name__)

DROPOUTS: Final = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "dropout_rate",
    "classifier_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)

MEAN_POOLED: Final = "ranker_mean_"
"""Prefix of the model type of mean-pooled classifiers, which the library's classes would silently read at [CLS]."""

Encode = Callable[[PreTrainedModel, Tensor, Tensor, Tensor, Tensor, Tensor | None, Reading | None], Tensor]
"""(backbone, input_ids, block_ids, position_ids, mask, members, reading) -> hidden states (rows, read tokens, hidden).

Ids and positions are (rows, sequence), ``mask`` (rows, 1, sequence, sequence) bool, ``members`` (rows, others) or None.
Without ``reading`` all tokens are read.
"""


def build(config: PretrainedConfig) -> PreTrainedModel:
    """An untrained backbone of ``config``'s family, ready for block masks.

    Raises:
        CheckpointError: the family has no block-mask reading here.
    """
    return prepare(AutoModel.from_config(_supported(config), attn_implementation=attention(config)))


def pretrained(name_or_path: str, config: PretrainedConfig) -> PreTrainedModel:
    """A pretrained backbone in fp32, ready for block masks.

    Raises:
        CheckpointError: the family has no block-mask reading here.
    """
    implementation = attention(_supported(config))
    return prepare(
        AutoModel.from_pretrained(name_or_path, config=config, dtype=torch.float32, attn_implementation=implementation)
    )


def prepare(backbone: PreTrainedModel) -> PreTrainedModel:
    """``prepare_layers``, and drop what no ranker reads (BERT's pooler)."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
    prepare_layers(backbone)
    return backbone


def prepare_layers(backbone: PreTrainedModel) -> None:
    """Give DeBERTa the attention that takes relative positions per row, and every encoder its last layer."""
    kind = family(backbone.config)
    if kind == "deberta-v2":
        for layer in backbone.encoder.layer:
            # Same parameters, other forward: assigning the class keeps the loaded weights where they are.
            layer.attention.self.__class__ = BlockDisentangledAttention
    last_layer.prepare(backbone, kind)


def encode(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    members: Tensor | None,
    reading: Reading | None = None,
) -> Tensor:
    """Hidden states (rows, read tokens, hidden) of any supported family; arguments as in ``Encode``."""
    kind = family(backbone.config)
    alone = reading if last_layer.reads_alone(backbone, kind) else None
    if reads_packed(backbone):
        states = packed(backbone, input_ids, block_ids, position_ids, members, alone)
    else:
        states = FAMILIES[kind](backbone, input_ids, block_ids, position_ids, mask, members, alone)
    return states if reading is None or alone is not None else reading.of(states)


def read_without_padding(model: PreTrainedModel, device: str | None = None) -> None:
    """Let a model read rows one after the other, without padding, in half precision or on a CPU.

    Args:
        model: to be read so.
        device: the type of device on which it will be computed; default: the one on which it is.

    Raises:
        ConfigError: the layout's masks or the family's attention have terms that variable-length kernels have not.
    """
    if (reason := why_padded(model, device or model.device.type)) is not None:
        raise ConfigError(f"padding_free: {reason}; leave it off")
    missing = {"scale", "window_size"} - kernel_options()
    if missing and torch.cuda.is_available():
        names = ", ".join(sorted(missing))
        logger.warning(
            "padding_free: torch %s's varlen_attn has no %s; rows are read padded. Install a newer torch",
            torch.__version__,
            names,
        )
        return
    if family(model.base_model.config) in ROW_BY_ROW:  # the library has one attention for them, which is replaced here
        model.base_model.config._attn_implementation = PADDING_FREE
    else:
        model.base_model.set_attn_implementation(PADDING_FREE)


def why_padded(model: PreTrainedModel, device: str) -> str | None:
    """Why a model cannot read rows without padding on a type of device; None if it can."""
    layout = model.layout
    kind = family(model.base_model.config)
    if not layout.reads_padding_free:
        return f"rows of layout '{layout.layout}' have masks of their own"
    if kind in ROW_BY_ROW and device != "cpu":
        return f"the attention of '{kind}' has no variable-length kernel on a GPU"
    if kind == "deberta-v2" and model.base_model.encoder.conv is not None:
        return "the convolution of DeBERTa-v2 reads over the ends of rows"
    if kind in UNPACKABLE or kind not in (*FAMILIES, *DECODERS):
        return f"the attention of '{kind}' has no variable-length kernel"
    if layout.extra_input == "members" and kind == "modernbert":
        return "ModernBERT's local layers do not see the other rows of a group"
    return None


def reads_packed(backbone: PreTrainedModel) -> bool:
    """Whether rows are read without padding now; torch's kernel on GPUs takes half precision alone."""
    if backbone.config._attn_implementation != PADDING_FREE:
        return False
    device = str(backbone.device.type)
    if family(backbone.config) in ROW_BY_ROW:
        return device == "cpu"
    return device == "cpu" or torch.is_autocast_enabled(device) or backbone.dtype in (torch.float16, torch.bfloat16)


def packed(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    members: Tensor | None,
    reading: Reading | None = None,
) -> Tensor:
    """Hidden states computed on what is not padding alone: (rows, read tokens, hidden), or all, zero on padding."""
    segments = segments_of(block_ids >= 0, members)

    def real(array: Tensor) -> Tensor:
        return array.flatten().index_select(0, segments.places)[None]

    read = None if reading is None else reading.without_padding(segments)
    arrays = (real(input_ids), real(block_ids), real(position_ids))
    one_sequence = ROW_BY_ROW.get(family(backbone.config), _variable_length)
    states = one_sequence(backbone, *arrays, segments, read)[0]
    if read is not None:
        of_rows: Tensor = states.view(len(block_ids), -1, states.shape[-1])
        return of_rows
    padded = states.new_zeros(block_ids.numel(), states.shape[-1]).index_copy(0, segments.places, states)
    hidden: Tensor = padded.view(*block_ids.shape, -1)
    return hidden


def _variable_length(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    segments: Segments,
    reading: Reading | None,
) -> Tensor:
    inputs: dict[str, Any] = {"input_ids": input_ids, "position_ids": position_ids, "segments": segments}
    if getattr(backbone.config, "type_vocab_size", 0) > 0:
        types = (block_ids > 0) & (backbone.config.type_vocab_size > 1)
        inputs["token_type_ids"] = types.long()
    if family(backbone.config) in DECODERS:
        inputs["use_cache"] = False
        # Without a mask the library looks for packed rows in the positions, and reads what it finds on the host.
        inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=block_ids.device)
    if reading is not None:
        inputs["reading"] = reading
    states: Tensor = backbone(**inputs).last_hidden_state
    return states


def set_dropout(config: PretrainedConfig, probability: float) -> PretrainedConfig:
    """Set every dropout of a backbone's configuration (hidden, attention, embeddings, MLP) to one probability."""
    for name in DROPOUTS:
        if getattr(config, name, None) is not None:
            setattr(config, name, probability)
    return config


def set_live_dropout(backbone: PreTrainedModel, probability: float) -> None:
    """``set_dropout`` of a model that is already built."""
    set_dropout(backbone.config, probability)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)


def quantization(kind: Quantization) -> dict[str, Any]:
    """Options of ``from_pretrained`` for 4-bit (NF4, arXiv 2305.14314) or 8-bit weights; heads are never quantised.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    if kind == "none":
        return {}
    require("bitsandbytes")
    settings = BitsAndBytesConfig(
        load_in_4bit=kind == "4bit",
        load_in_8bit=kind == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(HEAD_MODULES),
    )
    return {"quantization_config": settings}


def family(config: PretrainedConfig) -> str:
    """The architecture, whatever our own model types put before its name."""
    return str(config.model_type).removeprefix(MEAN_POOLED)


OFFSET: Final = ("roberta", "xlm-roberta", "mpnet")
"""Families that count positions from their padding index + 1."""


def position_offset(config: PretrainedConfig) -> int:
    """What the family adds to every position."""
    return int(config.pad_token_id) + 1 if family(config) in OFFSET else 0


def check_length(config: PretrainedConfig, max_length: int) -> None:
    """Refuse more tokens per block than the family has positions; purely relative ones (DeBERTa-v3) have no limit.

    Raises:
        ConfigError: naming both numbers.
    """
    limit = int(config.max_position_embeddings) - position_offset(config)
    if max_length > limit and getattr(config, "position_biased_input", True):
        raise ConfigError(f"model.max_length {max_length} is more than the backbone's {limit} positions; lower it")


def _absolute(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    members: Tensor | None,
    reading: Reading | None,
) -> Tensor:
    kinds = getattr(backbone.config, "type_vocab_size", 0)  # DistilBERT has none
    types = (block_ids > 0).long() if kinds > 1 else torch.zeros_like(input_ids)
    segments = {"token_type_ids": types} if kinds else {}
    out: Tensor = backbone(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=position_ids,
        members=members,
        reading=reading,
        **segments,
    ).last_hidden_state
    return out


def _mpnet(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    members: Tensor | None,
    reading: Reading | None,
) -> Tensor:
    hidden: Tensor = backbone.embeddings(input_ids=input_ids, position_ids=position_ids)
    bias = position_bias(backbone.encoder, position_ids, mask, members)
    *layers, last = backbone.encoder.layer
    for layer in layers:
        hidden = layer_output(layer, hidden, bias, members)
    return layer_output(last, hidden, bias, members, reading)


def _modernbert(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    members: Tensor | None,
    reading: Reading | None,
) -> Tensor:
    distance = (position_ids[:, :, None] - position_ids[:, None, :]).abs()
    near = mask & (distance <= backbone.config.sliding_window)[:, None]
    masks = {"full_attention": mask, "sliding_attention": near}
    out: Tensor = backbone(
        input_ids=input_ids, attention_mask=masks, position_ids=position_ids, members=members
    ).last_hidden_state
    return out


def _disentangled(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    members: Tensor | None,
    reading: Reading | None,
) -> Tensor:
    types = (block_ids > 0).long() if backbone.config.type_vocab_size > 1 else None
    embedded = backbone.embeddings(
        input_ids=input_ids, token_type_ids=types, position_ids=position_ids, mask=(block_ids >= 0).long()
    )
    out: Tensor = backbone.encoder(
        embedded,
        # DeBERTa-v2's convolution takes a padding mask alone; layouts with another mask refuse such backbones.
        mask[:, 0] if backbone.encoder.conv is None else (block_ids >= 0).long(),
        output_hidden_states=False,
        relative_pos=replace(relations(backbone.encoder, position_ids, members), reading=reading),
    ).last_hidden_state
    return out


def _mpnet_row_by_row(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    segments: Segments,
    reading: Reading | None,
) -> Tensor:
    hidden: Tensor = backbone.embeddings(input_ids=input_ids, position_ids=position_ids)
    rows = RowBiases.of(backbone.encoder, position_ids, position_ids, segments)
    *layers, last = backbone.encoder.layer
    for layer in layers:
        hidden = layer_output_without_padding(layer, hidden, rows)
    if reading is not None and reading.segments is not None:
        rows = RowBiases.of(backbone.encoder, reading.of(position_ids), position_ids, reading.segments)
    return layer_output_without_padding(last, hidden, rows, reading)


def _disentangled_row_by_row(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    block_ids: Tensor,
    position_ids: Tensor,
    segments: Segments,
    reading: Reading | None,
) -> Tensor:
    types = (block_ids > 0).long() if backbone.config.type_vocab_size > 1 else None
    embedded = backbone.embeddings(input_ids=input_ids, token_type_ids=types, position_ids=position_ids)
    out: Tensor = backbone.encoder(
        embedded,
        torch.ones(1, 1, 1, dtype=torch.long, device=input_ids.device),  # nothing is masked
        output_hidden_states=False,
        relative_pos=relations_without_padding(backbone.encoder, position_ids, segments, reading),
    ).last_hidden_state
    return out


DECODERS: Final = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "gpt2", "gptj")
"""Decoder families, all with a bias-free ``score`` on the last token."""

UNPACKABLE: Final = ("gemma2", "gptj")
"""Families whose attention has terms (relative positions, capped logits) that variable-length kernels have not."""

FAMILIES: Final[dict[str, Encode]] = {
    "bert": _absolute,
    "roberta": _absolute,
    "xlm-roberta": _absolute,
    "electra": _absolute,
    "distilbert": _absolute,
    "mpnet": _mpnet,
    "deberta-v2": _disentangled,
    "modernbert": _modernbert,
}


ROW_BY_ROW: Final[dict[str, Callable[[PreTrainedModel, Tensor, Tensor, Tensor, Segments, Reading | None], Tensor]]] = {
    "mpnet": _mpnet_row_by_row,
    "deberta-v2": _disentangled_row_by_row,
}
"""Families whose rows without padding are attended one by one, on a CPU: (backbone, input_ids, block_ids, position_ids,
segments, reading) -> hidden states (1, read tokens, hidden); all arrays are (1, tokens)."""


def _supported(config: PretrainedConfig) -> PretrainedConfig:
    if family(config) not in FAMILIES:
        raise CheckpointError(f"expected an encoder backbone of type {', '.join(FAMILIES)}; got '{config.model_type}'")
    return config


EAGER: Final = ("deberta-v2", "mpnet")
"""Families whose attention has terms of its own."""


def attention(config: PretrainedConfig) -> str:
    """The name of the attention implementation a family runs under."""
    return "eager" if family(config) in EAGER else NAME
