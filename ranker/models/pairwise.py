"""The pairwise ranker: one model, three candidate layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.errors import CheckpointError
from ranker.models import backbones
from ranker.models.attention.blocks import row_mask, star_mask
from ranker.models.heads import PairwiseHead
from ranker.models.tokenizers import text_tokenizer
from ranker.text.layout import PairwiseLayout, TextLayout
from ranker.text.tokenizer import TextTokenizer

MARKERS: Final[dict[PairwiseLayout, int]] = {"hub": 2, "set": 0, "published": 3}
"""How many marker ids a layout adds after the backbone's vocabulary."""


class PairwiseConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a ``PairwiseModel``; saved as ``config.json``.

    Args:
        backbone: the encoder's own configuration, as a dict with ``model_type``.
        text: the ``TextLayout``, as a dict.
        n_tasks: outputs of the head, one per preference criterion.
        head_dropout: probability (LLM-Blender: 0.05).
    """

    model_type = "ranker_pairwise"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        n_tasks: int = 1,
        head_dropout: float = 0.05,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.text = text or {}
        self.n_tasks = n_tasks
        self.head_dropout = head_dropout
        super().__init__(**kwargs)

    @property
    def layout(self) -> TextLayout:
        """The validated text layout."""
        return TextLayout.model_validate(self.text)

    def backbone_config(self) -> PretrainedConfig:
        """The encoder's configuration as transformers' own class."""
        return CONFIG_MAPPING[self.backbone["model_type"]].from_dict(self.backbone)


class PairwiseModel(PreTrainedModel):  # type: ignore[misc]
    """PairRM-style ranker over a BERT, RoBERTa, XLM-R, ELECTRA, DeBERTa-v2/v3 or ModernBERT encoder.

    ``hub`` and ``set`` are order-free: scores are permutation-equivariant and a comparison is a difference of scores.
    ``published`` is LLM-Blender's PairRM (arXiv 2306.02561). See ``ranker.text.layout.TextLayout``.
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
        width = inner.hidden_size * (1 if self.layout.layout == "set" else 2)
        self.head = PairwiseHead(width, inner.hidden_size, config.n_tasks, config.head_dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        block_ids: Tensor,
        position_ids: Tensor,
        readout: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tensor:
        """Logits (rows, candidates, tasks) in fp32; arguments as made by ``ranker.scoring.batching.collate``.

        A row of ``hub`` holds a whole group, of ``set`` one candidate, of ``published`` one ordered pair. Absent
        candidates (readout -1) hold meaningless numbers.
        """
        return READERS[self.layout.layout](self, input_ids, block_ids, position_ids, readout, members)

    def encode(
        self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor, mask: Tensor, members: Tensor | None
    ) -> Tensor:
        """Hidden states (rows, sequence, hidden)."""
        return backbones.encode(self.backbone, input_ids, block_ids, position_ids, mask, members)

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


def _with_source(
    model: PairwiseModel, ids: Tensor, blocks: Tensor, positions: Tensor, readout: Tensor | None, members: Tensor | None
) -> Tensor:
    if readout is None:
        raise ValueError(f"layout '{model.layout.layout}' needs 'readout' (rows, 1 + candidates); got none")
    mask = star_mask(blocks) if model.layout.layout == "hub" else row_mask(blocks)
    hidden = model.encode(ids, blocks, positions, mask, None)
    index = readout.clamp(min=0)[:, :, None].expand(-1, -1, hidden.shape[-1])
    read = hidden.gather(1, index)
    source = read[:, :1].expand(-1, read.shape[1] - 1, -1)
    scores: Tensor = model.head(torch.cat([source, read[:, 1:]], dim=-1))
    return scores


def _first_token(
    model: PairwiseModel, ids: Tensor, blocks: Tensor, positions: Tensor, readout: Tensor | None, members: Tensor | None
) -> Tensor:
    if model.layout.exchange and members is None:
        raise ValueError("layout 'set' with exchange needs 'members' (rows, others); got none")
    hidden = model.encode(ids, blocks, positions, row_mask(blocks), members)
    scores: Tensor = model.head(hidden[:, 0])[:, None]
    return scores


Reader = Callable[[PairwiseModel, Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
READERS: Final[dict[str, Reader]] = {"hub": _with_source, "set": _first_token, "published": _with_source}


def from_backbone(
    name_or_path: str,
    *,
    layout: PairwiseLayout,
    exchange: bool = True,
    max_length: int = 512,
    prompt_reserve: int = 64,
    n_tasks: int = 1,
    head_dropout: float = 0.05,
    backbone_dropout: float = 0.0,
) -> tuple[PairwiseModel, TextTokenizer]:
    """A ranker with a pretrained encoder and a newly initialised head, for training.

    Markers are new embedding rows after the backbone's vocabulary, started at the [CLS] embedding.

    Returns:
        The model in fp32 and its tokenizer.

    Raises:
        CheckpointError: the backbone's family cannot read block masks, or not in this layout.
        ConfigError: more tokens than the backbone has positions.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    inner = backbones.set_dropout(AutoConfig.from_pretrained(name_or_path), backbone_dropout)
    backbones.check_length(inner, max_length)
    encoder = backbones.pretrained(name_or_path, inner)
    if layout == "hub" and getattr(inner, "conv_kernel_size", 0) > 0:
        raise CheckpointError(
            f"{name_or_path}: its convolution reads across candidates, so layout 'hub' would depend on their order; "
            "take model.layout=set"
        )
    cls_id = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    sep_id = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    first = max(int(inner.vocab_size), len(tokenizer))
    markers = tuple(range(first, first + MARKERS[layout]))
    if markers:
        encoder.resize_token_embeddings(first + len(markers), mean_resizing=False)
        with torch.no_grad():
            _start_markers(encoder.get_input_embeddings().weight, markers, cls_id, layout, inner)
    text = TextLayout(
        layout=layout,
        exchange=exchange,
        max_length=max_length,
        prompt_reserve=prompt_reserve,
        cls_id=cls_id,
        sep_id=sep_id,
        pad_id=tokenizer.pad_token_id,
        markers=markers,
        position_offset=backbones.position_offset(inner),
    )
    config = PairwiseConfig(
        backbone=encoder.config.to_dict(), text=text.model_dump(), n_tasks=n_tasks, head_dropout=head_dropout
    )
    model = PairwiseModel(config)
    model.backbone.load_state_dict(encoder.state_dict())
    return model, text_tokenizer(tokenizer, markers)


def _start_markers(
    table: Tensor, markers: Sequence[int], cls_id: int, layout: PairwiseLayout, config: PretrainedConfig
) -> None:
    """Start the marker rows of an embedding table in place.

    ``hub``'s markers start at [CLS], whose place they take. ``published`` tells its two candidates apart by their
    markers alone, so they are drawn at random as LLM-Blender's are: started alike, both would be read alike.
    """
    noise = torch.randn(len(markers), table.shape[1])
    if layout == "hub":
        table[list(markers)] = table[cls_id] + 0.01 * table[cls_id].std() * noise
    else:
        table[list(markers)] = getattr(config, "initializer_range", 0.02) * noise
