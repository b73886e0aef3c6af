"""From a run's settings to a model on its pretrained backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from ranker.config import ModelConfig
from ranker.config.models import ArmoRMConfig, BaseModelConfig, PairwiseConfig, PointwiseConfig, SteamSHPConfig
from ranker.errors import ConfigError
from ranker.extras import offline_backbone
from ranker.layouts import Output
from ranker.models import armorm, pairwise, pointwise, steamshp
from ranker.models.backbones import MEAN_POOLED
from ranker.text.tokenizer import TextTokenizer

Built = tuple[PreTrainedModel, TextTokenizer]


def _pointwise(name: str, config: Any, output: Output, options: Mapping[str, Any]) -> Built:
    settings = config.model_dump(exclude={"type", "name_or_path", "init_head", "text"})
    return pointwise.from_backbone(name, output=output, text_settings=config.text, **settings, **options)


def _pairwise(name: str, config: Any, output: Output, options: Mapping[str, Any]) -> Built:
    settings = config.model_dump(exclude={"type", "name_or_path", "init_head"})
    return pairwise.from_backbone(name, layout=config.type, **settings, **options)


def _armorm(name: str, config: Any, output: Output, options: Mapping[str, Any]) -> Built:
    settings = config.model_dump(exclude={"type", "name_or_path", "gate"})
    return armorm.from_backbone(name, gate=config.gate, **settings, **options)


def _steamshp(name: str, config: Any, output: Output, options: Mapping[str, Any]) -> Built:
    settings = config.model_dump(exclude={"type", "name_or_path", "init_head"})
    return steamshp.from_backbone(name, **settings, **options)


BUILDERS: Final[dict[type[BaseModelConfig], Callable[[str, Any, Output, Mapping[str, Any]], Built]]] = {
    PointwiseConfig: _pointwise,
    PairwiseConfig: _pairwise,
    ArmoRMConfig: _armorm,
    SteamSHPConfig: _steamshp,
}
"""By the settings' class or its base: (name of the backbone, the settings, what the outputs mean, options) -> the
model. Every layout of the pairwise encoder has a subclass of ``PairwiseConfig``."""


def new_model(
    config: ModelConfig, output: Output, *, options: Mapping[str, Any] | None = None
) -> tuple[PreTrainedModel, TextTokenizer]:
    """A new model on its pretrained backbone; its head is newly initialised, on purpose.

    Args:
        config: the model's settings.
        output: what its outputs mean (``RunConfig.output``).
        options: passed on to ``from_pretrained`` (a quantisation).

    Raises:
        ConfigError: the backbone is neither a folder nor a hub name, or a setting does not fit it.
        CheckpointError: its family is not supported.
    """
    builder = next(BUILDERS[cls] for cls in type(config).__mro__ if cls in BUILDERS)
    try:
        with without_load_report():
            return builder(backbone_path(config.name_or_path), config, output, options or {})
    except OSError as error:
        raise unreachable(config.name_or_path, error) from error


@contextmanager
def without_load_report() -> Iterator[None]:
    """Without the library's report of new and unused tensors; the caller warns of a new head in one line."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def backbone_path(name_or_path: str) -> str:
    """A hub name or folder; ``offline`` is the packaged encoder."""
    return offline_backbone() if name_or_path == "offline" else name_or_path


def backbone_parameters(name_or_path: str) -> int:
    """Parameters of a backbone, counted from its configuration without reading a weight.

    Raises:
        ConfigError: it is neither a folder nor a hub name, or of a family that is not known.
    """
    try:
        values, _ = PretrainedConfig.get_config_dict(backbone_path(name_or_path))
    except OSError as error:
        raise unreachable(name_or_path, error) from error
    values = values.get("backbone") or values  # our own models hold their backbone's configuration
    kind = str(values.get("model_type", "")).removeprefix(MEAN_POOLED)
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"model.name_or_path '{name_or_path}': transformers does not know the family '{kind}'")
    with torch.device("meta"):
        return int(AutoModel.from_config(CONFIG_MAPPING[kind].from_dict(values)).num_parameters())


def unreachable(name_or_path: str, error: OSError) -> ConfigError:
    """The error of a backbone that could not be read, with what can be done about it."""
    reason = str(error).splitlines()[0]
    return ConfigError(
        f"model.name_or_path '{name_or_path}': expected a folder or a name on the model hub ({reason:.200}); without "
        "the hub, train the packaged encoder (--offline, from Python model='offline'), or name a folder"
    )
