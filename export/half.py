"""fp32 graph to fp16, for GPUs: the head, operators that square numbers, and chosen operators stay fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper

from ranker.export.graph import MICROSOFT, head_nodes
from ranker.extras import require

SQUARES: Final = ("Pow", "ReduceMean", "Sqrt", "Reciprocal")
"""Operators of root-mean-square norms: squares of a decoder's states exceed 65,504, the largest fp16 number."""


def fp16(graph: Path, kept: Sequence[str] = ()) -> Path:
    """Write an fp16 copy beside ``graph``; inputs and scores keep their types, operators in ``kept`` stay fp32."""
    float16 = require("onnxruntime.transformers.float16")
    model = onnx.load(graph)
    # Types are not inferred beyond the runtime's own operators; all of them give fp32.
    runtime_outputs = [output for node in model.graph.node if node.domain == MICROSOFT for output in node.output]
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in runtime_outputs
    )
    half = float16.convert_float_to_float16(
        model,
        keep_io_types=True,
        node_block_list=head_nodes(graph),
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *SQUARES, *kept],
    )
    target = graph.with_name("graph.fp16.onnx")
    del half.graph.value_info[:]
    onnx.save(half, target)
    return target
