"""What all sections of the configuration share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

Precision = Literal["auto", "bf16", "fp32"]
ExportPrecision = Literal["fp32", "fp16", "int8", "int8-static"]
Quantization = Literal["none", "4bit", "8bit"]
WeightBy = Literal["row", "prompt"]
AttentionKernel = Literal["auto", "efficient", "cudnn", "math", "compiled"]
Pooling = Literal["auto", "first_token", "mean"]


def several(value: Any) -> Any:
    """One text as a list of one; anything else as it is."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(several)]
"""Several texts; one text is a list of one."""


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
