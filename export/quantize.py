"""fp32 graph to int8: weights per channel, activations dynamically per tensor, the head untouched."""

from __future__ import annotations

import logging
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from ranker.export.graph import head_nodes

FLOAT32_TENSOR = 1
"""``TensorProto.FLOAT``: the type of tensors whose shape information the exporter left out."""


def to_int8(graph: Path, path: Path) -> None:
    """Write a dynamically quantised copy of ``graph`` to ``path``.

    Matrix products with constant weights become int8; the head stays fp32. This loses decisions on trained rankers
    (activations share one scale per tensor), so the parity table says how many.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime logs its advice on the root logger
    try:
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # The quantiser first rewrites Gemm to MatMul under a new name, which must be excluded too.
            nodes_to_exclude=[name + suffix for name in head_nodes(graph) for suffix in ("", "_MatMul")],
            extra_options={"DefaultTensorType": FLOAT32_TENSOR},
        )
    finally:
        root.setLevel(level)
