"""The pairwise ranker: one model for the layouts that read the candidates of a prompt together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from ranker.errors import CheckpointError
from ranker.layouts import LAYOUTS
from ranker.models import backbones
from ranker.models.attention.blocks import star_mask
from ranker.models.heads import PairwiseHead
from ranker.models.readouts import READOUTS
from ranker.models.stored import StoredBackbone
from ranker.models.tokenizers import text_tokenizer
from ranker.text.tokenizer import TextTokenizer


class PairwiseConfig(StoredBackbone, PretrainedConfig):  # type: ignore[misc]
    """Configuration of a ``PairwiseModel``; saved as ``config.json``.

    Args:
        backbone: the encoder's own configuration, as a dict with ``model_type``.
        text: the layout, as a dict (``ranker.layouts.parse``).
        num_labels: outputs of the head, one per preference criterion; default those of ``id2label``, else one.
        head_dropout: probability (LLM-Blender: 0.05).
    """

    model_type = "ranker_pairwise"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        num_labels: int | None = None,
        head_dropout: float = 0.05,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.text = text or {}
        self.head_dropout = head_dropout
        if "id2label" not in kwargs:
            # Names of our own: the library leaves out two labels with its own names, which are its default.
            names = {i: f"label {i}" for i in range(num_labels or 1)}
            kwargs |= {"id2label": names, "label2id": {name: i for i, name in names.items()}}
        super().__init__(**kwargs)


class PairwiseModel(PreTrainedModel):  # type: ignore[misc]
    """PairRM-style ranker over a BERT, RoBERTa, XLM-R, ELECTRA, DeBERTa-v2/v3 or ModernBERT encoder.

    ``shared_prompt`` and ``set_encoder`` are order-free: scores are permutation-equivariant and a comparison is a
    difference of scores. ``ordered_pair`` is LLM-Blender's PairRM (arXiv 2306.02561). See ``ranker.layouts``.
    """

    config_class = PairwiseConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_attention_backend = True
    _supports_sdpa = True

    def __init__(self, config: PairwiseConfig) -> None:
        super().__init__(config)
        inner = config.backbone_config()
        self.layout = config.layout
        self.backbone = backbones.build(inner)
        self.readout = READOUTS[type(self.layout)]
        width = self.readout.states * inner.hidden_size
        self.head = PairwiseHead(width, inner.hidden_size, config.num_labels, config.head_dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        block_ids: Tensor,
        position_ids: Tensor,
        readout: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tensor:
        """Logits (rows, candidates, outputs) in fp32; arguments as made by ``ranker.scoring.batching.collate``.

        A row of ``shared_prompt`` holds a whole group, of ``set_encoder`` one candidate, of ``ordered_pair`` one
        ordered pair. Absent candidates (readout -1) hold meaningless numbers.
        """
        needed = self.layout.extra_input
        if {"readout": readout, "members": members, None: input_ids}[needed] is None:
            raise ValueError(f"layout '{self.layout.layout}' needs '{needed}'; got none")
        mask = self.readout.mask(block_ids)
        reading = self.readout.reading(readout)
        states = backbones.encode(self.backbone, input_ids, block_ids, position_ids, mask, members, reading)
        scores: Tensor = self.head(self.readout.features(states))
        return scores

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = getattr(self.config.backbone_config(), "initializer_range", 0.02)
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, std)
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.zero_()


def from_backbone(
    name_or_path: str,
    *,
    layout: str,
    max_length: int = 512,
    prompt_reserve: int = 64,
    num_labels: int = 1,
    head_dropout: float = 0.05,
    backbone_dropout: float = 0.0,
) -> tuple[PairwiseModel, TextTokenizer]:
    """A ranker with a pretrained encoder and a newly initialised head, for training.

    Markers are new embedding rows after the backbone's vocabulary.

    Returns:
        The model in fp32 and its tokenizer.

    Raises:
        CheckpointError: the backbone's family cannot read block masks, or not in this layout.
        ConfigError: more tokens than the backbone has positions.
    """
    layout_class: Any = LAYOUTS[layout]
    readout = READOUTS[layout_class]
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    inner = backbones.set_dropout(AutoConfig.from_pretrained(name_or_path), backbone_dropout)
    backbones.check_length(inner, max_length)
    encoder = backbones.pretrained(name_or_path, inner)
    if readout.mask is star_mask and getattr(inner, "conv_kernel_size", 0) > 0:
        raise CheckpointError(
            f"{name_or_path}: its convolution reads across candidates, so layout '{layout}' would depend on their "
            "order; take model.type=set_encoder"
        )
    cls_id = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    sep_id = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    first = max(int(inner.vocab_size), len(tokenizer))
    markers = tuple(range(first, first + readout.markers))
    if markers:
        encoder.resize_token_embeddings(first + len(markers), mean_resizing=False)
        with torch.no_grad():
            table = encoder.get_input_embeddings().weight
            table[list(markers)] = readout.first_markers(table, cls_id, getattr(inner, "initializer_range", 0.02))
    text = layout_class(
        max_length=max_length,
        prompt_reserve=prompt_reserve,
        cls_id=cls_id,
        sep_id=sep_id,
        pad_id=tokenizer.pad_token_id,
        position_offset=backbones.position_offset(inner),
        **({"markers": markers} if markers else {}),
    )
    config = PairwiseConfig(
        backbone=encoder.config.to_dict(), text=text.model_dump(), num_labels=num_labels, head_dropout=head_dropout
    )
    model = PairwiseModel(config)
    model.backbone.load_state_dict(encoder.state_dict())
    return model, text_tokenizer(tokenizer, markers)
