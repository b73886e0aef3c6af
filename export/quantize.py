"""fp32 graph to int8: weights per channel, activations dynamically per tensor, the head untouched."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from ranker.export.graph import head_nodes

FLOAT32_TENSOR = 1
"""``TensorProto.FLOAT``: the type of tensors whose shape information the exporter left out."""


def to_int8(graph: Path, path: Path) -> None:
    """Write a dynamically quantised copy of ``graph`` to ``path``.

    Matrix products with constant weights become int8; the head stays fp32. This loses decisions on trained rankers
    (activations share one scale per tensor), so the parity table says how many.

    Raises:
        ExportError: the head's nodes are not found, so they could not be left as they are.
    """
    excluded = head_nodes(graph)
    untied = path.with_name(f"{path.stem}.untied.onnx")
    onnx.save(without_tied_gemms(onnx.load(graph)), untied)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime logs its advice on the root logger
    try:
        quantize_dynamic(
            untied,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # The quantiser first rewrites Gemm to MatMul under a new name, which must be excluded too.
            nodes_to_exclude=[name + suffix for name in excluded for suffix in ("", "_MatMul")],
            extra_options={"DefaultTensorType": FLOAT32_TENSOR},
        )
    finally:
        root.setLevel(level)
        untied.unlink()


def without_tied_gemms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write a Gemm whose weights other nodes read too (T5's tied words) as Transpose and MatMul, in place.

    The quantiser transposes the weights of a Gemm where they lie, which would turn the embedding table around.
    """
    uses = Counter(name for node in model.graph.node for name in node.input)
    nodes = []
    for node in model.graph.node:
        transposed = {a.name: a.i for a in node.attribute}.get("transB", 0)
        if node.op_type != "Gemm" or len(node.input) != 2 or not transposed or uses[node.input[1]] < 2:
            nodes.append(node)
            continue
        turned = f"{node.output[0]}_weights_transposed"
        nodes.append(onnx.helper.make_node("Transpose", [node.input[1]], [turned], perm=[1, 0]))
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], turned], [node.output[0]], name=node.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
