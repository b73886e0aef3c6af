"""What all sections of the configuration share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["auto", "bf16", "fp32"]
ExportPrecision = Literal["fp32", "fp16", "int8", "int8-static"]
Quantization = Literal["none", "4bit", "8bit"]
Pooling = Literal["auto", "first_token", "mean"]


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
