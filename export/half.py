"""fp32 graph to fp16, for GPUs: the head, operators that square numbers, and chosen operators stay fp32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ranker.errors import ExportError
from ranker.export import storage
from ranker.export.fusion import Fusion
from ranker.export.graph import MICROSOFT, head_nodes, of_head
from ranker.extras import require

LARGEST: Final = 65504.0
"""The largest fp16 number."""

SQUARES: Final = ("Pow", "ReduceMean", "Sqrt", "Reciprocal")
"""Operators of root-mean-square norms: squares of a decoder's states exceed ``LARGEST``."""

MATRIX: Final = 1 << 22
"""Bytes of a tensor on disk from which the converter does not see its values; it would read them only to copy them."""


def fp16(graph: Path, kept: Sequence[str] = (), *, key_lengths: bool = False) -> Path:
    """Write an fp16 copy beside ``graph``.

    Inputs and scores keep their types. Nodes are fused as ``ranker.export.fusion`` says.

    Args:
        graph: the fp32 graph.
        kept: operators that stay fp32.
        key_lengths: whether attention gets the rows' lengths in the place of an additive mask, where the mask is
            nothing but padding, so that more of its kernels can be chosen.

    Raises:
        ExportError: ``key_lengths`` of a model whose masks are more than padding.
    """
    float16 = require("onnxruntime.transformers.float16")
    head = head_nodes(graph)
    model = storage.load(graph)
    fusion = Fusion(model)
    fusion.fuse()
    if key_lengths and not fusion.use_key_lengths():
        raise ExportError(
            "key_lengths: the attention of this model reads a mask that is more than padding (positions, blocks, "
            "exchanged states or causal order); export it without"
        )
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    matrices = _as_inputs(model, graph.parent)
    # Types are not inferred beyond the runtime's own operators; all of them give fp32.
    runtime_outputs = [output for node in model.graph.node if node.domain == MICROSOFT for output in node.output]
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in runtime_outputs
    )
    half = float16.convert_float_to_float16(
        model,
        keep_io_types=names,
        node_block_list=head,
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *SQUARES, *kept],
    )
    # The converter writes a cast once for every operator that reads its result.
    nodes = {node.name or f"unnamed {number}": node for number, node in enumerate(half.graph.node)}
    nodes = {name: onnx.NodeProto.FromString(node.SerializeToString()) for name, node in nodes.items()}
    del half.graph.node[:]
    half.graph.node.extend(nodes.values())
    inputs = [value for value in half.graph.input if value.name in names]
    del half.graph.input[:]
    half.graph.input.extend(inputs)
    converted = {tensor.name: partial(_half, tensor, graph.parent) for tensor in matrices}
    half.graph.initializer.extend(
        TensorProto(name=tensor.name, data_type=TensorProto.FLOAT16, dims=tensor.dims) for tensor in matrices
    )
    target = graph.with_name("graph.fp16.onnx")
    del half.graph.value_info[:]
    storage.save(half, target, graph.parent, converted)
    return target


def _half(tensor: TensorProto, folder: Path) -> NDArray[np.float16]:
    values: NDArray[np.float16] = np.clip(storage.array(tensor, folder), -LARGEST, LARGEST).astype(np.float16)
    return values


def _as_inputs(model: onnx.ModelProto, folder: Path) -> list[TensorProto]:
    """Declare the matrices on disk, except the head's, as inputs of the graph, and read all other tensors into it."""
    matrices: list[TensorProto] = []
    others: list[TensorProto] = []
    for tensor in model.graph.initializer:
        on_disk = tensor.data_location == TensorProto.EXTERNAL and tensor.data_type == TensorProto.FLOAT
        is_matrix = on_disk and storage.nbytes(tensor) >= MATRIX and not of_head(tensor.name)
        (matrices if is_matrix else others).append(tensor)
    matrices = [TensorProto.FromString(tensor.SerializeToString()) for tensor in matrices]
    others = [storage.constant(tensor, folder) for tensor in others]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    model.graph.input.extend(helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in matrices)
    return matrices
