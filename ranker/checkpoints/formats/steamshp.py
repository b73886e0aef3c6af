"""SteamSHP and any other encoder-decoder that answers A or B; it has no separate head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.formats.spec import PROMPT_RESERVE, Facts, LoadSpec
from ranker.models import steamshp

LENGTH: Final = 512
"""Most tokens of a row in SteamSHP's training."""


def read(folder: Path, values: dict[str, Any], _: Facts) -> LoadSpec:
    """The model of transformers with SteamSHP's question."""
    config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    config.ranker = steamshp.settings(AutoTokenizer.from_pretrained(folder), LENGTH, PROMPT_RESERVE)
    return LoadSpec(config, steamshp.answer_class(config))
