"""What configurations of our own share: the backbone's configuration and the layout, stored as dicts."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker import layouts
from ranker.layouts import Layout


class StoredBackbone:
    """Mixed into a configuration that has ``backbone`` and ``text``."""

    backbone: dict[str, Any]
    text: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """The validated layout."""
        return layouts.parse(self.text)

    def backbone_config(self) -> PretrainedConfig:
        """The backbone's configuration as transformers' own class."""
        return CONFIG_MAPPING[self.backbone["model_type"]].from_dict(self.backbone)
