"""ArmoRM: several aspects regressed on a frozen backbone, mixed by a gate that reads the prompt (arXiv 2406.12845).

Names of the parameters are those of the released model, RLHFlow/ArmoRM-Llama3-8B-v0.1. Two faults of the public
training script are not repeated: the gate is a softmax over the aspects (not over the answers of a pair, where it is
always one half), and the transform that takes verbosity out of the other aspects is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel

from ranker.config import GateConfig, Pooling
from ranker.models import backbones, decoders, pointwise
from ranker.models.attention.blocks import row_mask
from ranker.models.heads import POOLINGS, resolve
from ranker.models.stored import StoredBackbone
from ranker.models.tokenizers import text_tokenizer
from ranker.text.tokenizer import TextTokenizer


class GatedConfig(StoredBackbone, PretrainedConfig):  # type: ignore[misc]
    """Configuration of a ``GatedModel``.

    Args:
        backbone: the backbone's own configuration, as a dict with ``model_type``.
        text: the layout, as a dict.
        aspects: names of the regressed aspects, in the order of the outputs.
        pooling: where the features of an answer are read.
        gate: the ``GateConfig``, as a dict.
    """

    model_type = "ranker_gated"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        aspects: Sequence[str] = (),
        pooling: str = "last_token",
        gate: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.text = text or {}
        self.aspects = list(aspects)
        self.pooling = pooling
        self.gate = gate or {}
        super().__init__(**kwargs)


class Gating(nn.Module):
    """An MLP from the prompt's state to weights of the aspects that sum to ``logit_scale`` (1 at the start)."""

    def __init__(self, width: int, aspects: int, config: GateConfig) -> None:
        super().__init__()
        widths = [width, *[config.hidden] * config.layers]
        inner = [nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
        self.layers = nn.ModuleList([*inner, nn.Linear(widths[-1], aspects)])
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = config.temperature
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, prompt: Tensor) -> Tensor:
        """(rows, width) -> (rows, aspects)."""
        hidden = prompt
        for layer in self.layers[:-1]:
            hidden = self.dropout(torch.relu(layer(hidden)))
        logits: Tensor = self.layers[-1](hidden)
        return (logits / self.temperature).softmax(dim=-1) * self.logit_scale


class GatedModel(PreTrainedModel):  # type: ignore[misc]
    """Aspects of an answer and their mixture: ``score = sum(gate(prompt) * (W h(answer)) T)``."""

    config_class = GatedConfig
    base_model_prefix = "model"
    _supports_attention_backend = True
    _supports_sdpa = True

    def __init__(self, config: GatedConfig) -> None:
        super().__init__(config)
        inner = config.backbone_config()
        self.layout = config.layout
        encoder = backbones.family(inner) in backbones.FAMILIES
        self.model = backbones.build(inner) if encoder else AutoModel.from_config(inner)
        count = len(config.aspects)
        self.regression_layer = nn.Linear(inner.hidden_size, count, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(count), requires_grad=False)
        self.gating = Gating(inner.hidden_size, count, GateConfig.model_validate(config.gate))
        self.post_init()

    def features(
        self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor, readout: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States (rows, hidden) in fp32 of the answer and of the prompt, read where the answer's turn begins."""
        mask = block_ids >= 0
        if backbones.family(self.model.config) in backbones.FAMILIES:
            hidden = backbones.encode(self.model, input_ids, block_ids, position_ids, row_mask(block_ids), None)
        else:
            hidden = decoders.states(self.model, input_ids, block_ids, position_ids)
        hidden = hidden.float()
        prompt = hidden.gather(1, readout[:, :1, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        return POOLINGS[self.config.pooling](hidden, mask), prompt

    def mix(self, answer: Tensor, prompt: Tensor) -> Tensor:
        """Outputs (rows, 1 + aspects) from two states (rows, hidden): the gated score, then the raw aspects."""
        aspects = self.regression_layer(answer)
        score = (self.gating(prompt) * (aspects @ self.reward_transform_matrix)).sum(dim=-1, keepdim=True)
        return torch.cat([score, aspects], dim=-1)

    def forward(self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor, readout: Tensor) -> Tensor:
        """Outputs (rows, 1, 1 + aspects) in fp32; arguments as made by ``ranker.scoring.batching.collate``."""
        answer, prompt = self.features(input_ids, block_ids, position_ids, readout)
        with torch.autocast(answer.device.type, enabled=False):
            return self.mix(answer, prompt)[:, None]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                module.bias.zero_()


def from_backbone(
    name_or_path: str,
    *,
    aspects: Sequence[str],
    gate: GateConfig,
    pooling: Pooling = "first_token",
    max_length: int = 512,
    prompt_reserve: int = 64,
) -> tuple[GatedModel, TextTokenizer]:
    """A gated model with a pretrained backbone; the regression and the gate are new.

    Returns:
        The model in fp32 and its tokenizer.

    Raises:
        CheckpointError: the backbone's family is not supported.
        ConfigError: more tokens than the backbone has positions, or mean pooling of a decoder.
    """
    pooling = resolve(pooling, name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    inner = backbones.set_dropout(AutoConfig.from_pretrained(name_or_path), 0.0)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id  # masked everywhere and never read by its id
    text = pointwise.text_layout(
        tokenizer, inner, output="gated", pooling=pooling, max_length=max_length, prompt_reserve=prompt_reserve
    )
    encoder = inner.model_type in backbones.FAMILIES
    if encoder:
        backbone = backbones.pretrained(name_or_path, inner)
    else:
        backbone = AutoModel.from_pretrained(name_or_path, config=inner, dtype=torch.float32)
    config = GatedConfig(
        backbone=backbone.config.to_dict(),
        text=text.model_dump(mode="json"),
        aspects=aspects,
        pooling=pooling if encoder else "last_token",
        gate=gate.model_dump(),
    )
    model = GatedModel(config)
    model.model.load_state_dict(backbone.state_dict())
    return model, text_tokenizer(tokenizer)
