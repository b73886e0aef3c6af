"""ArmoRM as it is released (RLHFlow/ArmoRM-Llama3-8B-v0.1); its tensors have our names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.formats.spec import Facts, LoadSpec, outputs, text_of
from ranker.checkpoints.weights import COPY_AGAIN
from ranker.config import GateConfig
from ranker.errors import CheckpointError
from ranker.models.armorm import GatedConfig, GatedModel


def read(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """Regression, transform and gate; the size of the gate comes from its tensors."""
    shapes = facts["tensors"]
    layers = sorted(name for name in shapes if name.startswith("gating.layers.") and name.endswith(".weight"))
    if not layers:
        raise CheckpointError(f"{folder}: the gate, 'gating.layers.0.weight', is missing; {COPY_AGAIN}")
    gate = GateConfig(
        hidden=shapes[layers[0]][0],
        layers=len(layers) - 1,
        temperature=float(values.get("gating_temperature", 10.0)),
    )
    backbone = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    config = GatedConfig(
        backbone=backbone.to_dict(),
        text=text_of(folder, backbone, "gated", "first_token").model_dump(),
        aspects=outputs(facts["outputs"], facts["labels"])[1],
        gate=gate.model_dump(),
        pooling="last_token",
    )
    return LoadSpec(config, GatedModel)
