"""fp32 graph to int8: weights per channel, activations with a fixed scale or one per token, the head untouched.

Rows of a batch share no scale, so a score depends on the rest of its batch only by rounding. ``rounding`` rounds the
numbers; this module turns them into nodes. A product is onnxruntime's ``MatMulIntegerToFloat``, which takes one scale
of the activation; scales per token multiply its result, and the products of outlier channels are added to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ranker.errors import ExportError
from ranker.export import storage
from ranker.export.fusion import ATTENTION, Fusion
from ranker.export.graph import MICROSOFT, head_nodes
from ranker.export.nodes import Product, QuantizedNodes
from ranker.export.rounding import ActivationStats, Rounded, Rounder, Scheme
from ranker.extras import require
from ranker.layouts.layout import Arrays
from ranker.runtime.session import CPU

TOKENS: Final = 1
"""The dimension of hidden states (rows, sequence, hidden) that is the sequence."""

STATES: Final = 2048
"""Tokens whose activations are kept for rounding."""

STATES_PER_BATCH: Final = 64


def products(graph: Path) -> dict[str, list[Product]]:
    """The products that become int8, by the activation they read; those of the head stay as they are.

    So do those of the last layer that read a few tokens of each row, which take no time.

    Raises:
        ExportError: the head's nodes are not found, so the head could not be kept in fp32; or the graph has no product
            that can be quantised.
    """
    model, folder = storage.load(graph), graph.parent
    excluded = {*head_nodes(graph), *_of_few_tokens(model.graph)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    by_activation: dict[str, list[Product]] = defaultdict(list)
    for node in model.graph.node:
        weights = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weights is None or len(weights.dims) != 2 or node.name in excluded:
            continue
        if node.op_type == "Gemm":
            if _plain(node) and set(node.input[2:]) <= set(constants):
                bias = storage.array(constants[node.input[2]], folder) if len(node.input) > 2 else None
                by_activation[node.input[0]].append(Product(node, storage.array(weights, folder), None, bias))
            continue
        after = readers[node.output[0]]
        addition = after[0] if len(after) == 1 and after[0].op_type == "Add" else None
        other = next((n for n in addition.input if n != node.output[0]), "") if addition is not None else ""
        known = other in constants and list(constants[other].dims) == [weights.dims[1]]
        bias = storage.array(constants[other], folder) if known else None
        product = Product(node, storage.array(weights, folder), addition if known else None, bias)
        by_activation[node.input[0]].append(product)
    if not by_activation:
        raise ExportError("found no matrix product that could become int8 in this graph; export only fp32")
    return dict(by_activation)


def _of_few_tokens(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the nodes after the choice of the tokens that the head reads."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    norms = {node.output[0] for node in graph.node if node.op_type == "LayerNormalization"}
    few: set[str] = set()
    for node in graph.node:
        chooses = node.input and node.input[0] in norms and _axis(node, constants) == TOKENS
        if chooses or not few.isdisjoint(node.input[:1] if node.op_type == ATTENTION else node.input):
            few |= set(node.output)
            yield node.name


def _axis(node: NodeProto, constants: Mapping[str, TensorProto]) -> int | None:
    """The dimension of which a node takes some places."""
    if node.op_type == "GatherElements":
        return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if node.op_type == "Slice" and len(node.input) > 3 and node.input[3] in constants:
        axes = numpy_helper.to_array(constants[node.input[3]]).tolist()
        return int(axes[0]) if len(axes) == 1 else None
    return None


def _plain(node: NodeProto) -> bool:
    """Whether a ``Gemm`` is x W or x W + b and nothing else."""
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(helper.get_attribute_value(a) == usual[a.name] for a in node.attribute)


class Calibration:
    """Records activations while rows are scored: a forward for ``TextPipeline.score``.

    Args:
        graph: the fp32 graph.

    Raises:
        ExportError: as in ``products``.
    """

    def __init__(self, graph: Path) -> None:
        self.products = products(graph)
        model = storage.load(graph)
        for name in self.products:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        watched = graph.with_name("watched.onnx")
        onnx.save(model, watched)
        self._session = require("onnxruntime").InferenceSession(str(watched), providers=[CPU])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._random = np.random.default_rng(0)
        self._seen: dict[str, list[ActivationStats]] = defaultdict(list)

    def __call__(self, arrays: Arrays) -> NDArray[np.float32]:
        """Logits of a batch; its activations are recorded, except those of padding."""
        wanted = ["scores", *self.products]
        scores: NDArray[np.float32]
        scores, *activations = self._session.run(wanted, {name: arrays[name] for name in self._inputs})
        is_text = arrays["block_ids"] >= 0 if "block_ids" in arrays else None
        noted: list[ActivationStats] = []
        for states in activations:
            tokens = states.reshape(-1, states.shape[-1])
            real = is_text if is_text is not None and len(tokens) == is_text.size else None
            tokens = tokens if real is None else tokens[real.reshape(-1)]
            some = self._random.choice(len(tokens), min(STATES_PER_BATCH, len(tokens)), replace=False)
            kept = some if real is None else np.union1d(some, _ends(real))
            noted.append(ActivationStats(tokens.min(axis=0), tokens.max(axis=0), tokens[kept]))
        for name, seen in zip(self.products, noted, strict=True):
            self._seen[name].append(seen)
        return scores

    def seen(self, name: str) -> ActivationStats:
        """The recorded statistics of an activation."""
        parts = self._seen[name]
        states = np.concatenate([part.states for part in parts])
        some = np.random.default_rng(0).choice(len(states), min(STATES, len(states)), replace=False)
        states = states[np.sort(some)]  # of all batches: the first ones hold the longest rows
        return ActivationStats(
            np.min([part.low for part in parts], axis=0), np.max([part.high for part in parts], axis=0), states
        )


class Quantizer:
    """Writes quantised copies of a graph; shared results are computed once.

    Args:
        graph: the fp32 graph.
        calibration: has recorded activations of rows like those that will be scored; None where only weights with
            scales by block are asked for.
    """

    def __init__(self, graph: Path, calibration: Calibration | None) -> None:
        self.products = products(graph) if calibration is None else calibration.products
        self._model = storage.load(graph)
        self._folder = graph.parent
        self._calibration = calibration
        self._rounded: dict[tuple[str, Scheme], Rounded] = {}

    def rounder(self, activation: str) -> Rounder:
        """What rounding an activation and its products may cost."""
        if self._calibration is None:
            raise ExportError("scales of activations need a calibration")
        return Rounder(self._calibration.seen(activation), [product.weights for product in self.products[activation]])

    def rounded(self, activation: str, scheme: Scheme, rounder: Rounder | None = None) -> Rounded:
        """An activation and its products in 8 bits; ``rounder`` is the activation's, where it is there already."""
        key = (activation, scheme)
        if key not in self._rounded:
            self._rounded[key] = (rounder or self.rounder(activation)).rounded(scheme)
        return self._rounded[key]

    def write(
        self,
        path: Path,
        schemes: Mapping[str, Scheme],
        *,
        use_qdq: bool = False,
        weights_only: bool = False,
    ) -> None:
        """Write a copy to ``path``.

        Args:
            path: the file of the copy.
            schemes: how activations get their 8 bits; products of those that are not named stay fp32.
            use_qdq: whether ONNX's own nodes are written (QuantizeLinear, DequantizeLinear), as engines fuse them.
            weights_only: whether all weights become 8 bits, and are multiplied in fp32.
        """
        replaced: dict[str, Sequence[NodeProto]] = {}
        constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        for number, (activation, group) in enumerate(self.products.items()):
            written = QuantizedNodes(f"int8_{number}")
            if weights_only:
                written.blocks(activation, group)
            elif activation in schemes:
                numbers = self.rounded(activation, schemes[activation])
                (written.qdq if use_qdq else written.fused)(activation, group, numbers)
            else:
                continue
            replaced |= {product.node.name: () for product in group}
            replaced |= {product.addition.name: () for product in group if product.addition is not None}
            replaced[group[0].node.name] = written.nodes
            constants |= written.constants
        nodes = [new for node in self._model.graph.node for new in replaced.get(node.name, (node,))]
        used = {name for node in nodes for name in node.input}
        model = onnx.ModelProto()
        model.CopyFrom(_without(self._model))
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
        if all(opset.domain != MICROSOFT for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        if not (use_qdq or weights_only):  # passes of these are padded
            Fusion(model).skip_mask()
        storage.save(model, path, self._folder)


def _ends(present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Positions of the first and last token of every row among the tokens without padding; models are read there."""
    after = np.cumsum(present.sum(axis=1))
    return np.concatenate([after - 1, after[:-1], [0]])


def _without(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model's frame: inputs, outputs and versions, without nodes and constants."""
    frame = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    frame.opset_import.extend(model.opset_import)
    frame.graph.name = model.graph.name
    frame.graph.input.extend(model.graph.input)
    frame.graph.output.extend(model.graph.output)
    return frame
