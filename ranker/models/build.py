"""From a run's settings to a model on its pretrained backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from transformers import PreTrainedModel

from ranker.config import GateConfig, ModelConfig, Scheme
from ranker.errors import ConfigError
from ranker.extras import offline_backbone
from ranker.models import armorm, pairwise, pointwise, steamshp
from ranker.text.tokenizer import TextTokenizer

LENGTHS: Final = {"max_length", "prompt_reserve"}
SETTINGS: Final[dict[Scheme, set[str]]] = {
    "pairwise": {*LENGTHS, "layout", "exchange", "n_tasks", "head_dropout", "backbone_dropout"},
    "reward": {*LENGTHS, "output", "aspects", "pooling", "backbone_dropout"},
    "gated": {*LENGTHS, "aspects", "pooling"},
    "seq2seq": {*LENGTHS, "backbone_dropout"},
}
"""The settings of ``ModelConfig`` that each scheme's model takes."""

MAKERS: Final[dict[Scheme, Callable[..., tuple[PreTrainedModel, TextTokenizer]]]] = {
    "pairwise": pairwise.from_backbone,
    "reward": pointwise.from_backbone,
    "gated": armorm.from_backbone,
    "seq2seq": steamshp.from_backbone,
}


def start(
    config: ModelConfig, *, gate: GateConfig | None = None, options: Mapping[str, Any] | None = None
) -> tuple[PreTrainedModel, TextTokenizer]:
    """A new model on its pretrained backbone; its head is newly initialised, on purpose.

    Args:
        config: the model's settings.
        gate: the gate's, for gated models.
        options: passed on to ``from_pretrained`` (a quantisation).

    Raises:
        ConfigError: the backbone is neither a folder nor a hub name, or a setting does not fit it.
        CheckpointError: its family is not supported.
    """
    name = offline_backbone() if config.name_or_path == "offline" else config.name_or_path
    settings = config.model_dump(include=SETTINGS[config.scheme]) | dict(options or {})
    if config.scheme == "gated":
        settings["gate"] = gate or GateConfig()
    try:
        return MAKERS[config.scheme](name, **settings)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.name_or_path '{config.name_or_path}': expected a folder or a hub name ({reason:.200})"
        ) from error
