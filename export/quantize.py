"""fp32 graph to int8: weights per channel, activations per token, outlier channels smoothed, the head untouched.

A scale per token is shared with nothing else in the batch (what is left of the batch in a score is rounding), and keeps
rare large activations from taking the resolution of all others. What channels have in common is moved into the weights
before both are rounded (SmoothQuant, arXiv 2211.10438); how far is chosen by measurement.

Per matrix product ``x W + b`` with u8 activations ``q``, their scale ``s`` and zero point ``z`` per token, i8 weights
``V`` and their scale ``v`` per channel: ``s (q - 128) V v + [s (128 - z), 1] [sum(V) v; b]``. The first product is
onnxruntime's ``MatMulIntegerToFloat``, whose zero point is one number, which is why the second is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ranker.export.graph import head_nodes
from ranker.extras import require
from ranker.runtime.session import CPU
from ranker.text.batching import Arrays

SMOOTHINGS: Final = (0.4, 0.5, 0.65)
"""Shares of a channel's range that are moved into the weights; 0 moves nothing, 1 everything."""

MICROSOFT: Final = "com.microsoft"
TINY: Final = np.float32(1e-9)

Ranges = Mapping[str, NDArray[np.float32]]
"""Largest absolute value of every channel, by the name of the activation."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product with constant weights, and the addition of its bias where there is one."""

    node: NodeProto
    weights: NDArray[np.float32]
    addition: NodeProto | None
    bias: NDArray[np.float32] | None


def products(model: onnx.ModelProto, excluded: Sequence[str]) -> dict[str, list[Product]]:
    """The products that become int8, by the activation they read; those in ``excluded`` stay as they are."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    found: dict[str, list[Product]] = defaultdict(list)
    for node in model.graph.node:
        weights = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or len(weights.dims) != 2 or node.name in excluded:
            continue
        after = readers[node.output[0]]
        addition = after[0] if len(after) == 1 and after[0].op_type == "Add" else None
        other = next((n for n in addition.input if n != node.output[0]), "") if addition is not None else ""
        known = other in constants and list(constants[other].dims) == [weights.dims[1]]
        bias = numpy_helper.to_array(constants[other]) if known else None
        product = Product(node, numpy_helper.to_array(weights), addition if known else None, bias)
        found[node.input[0]].append(product)
    return dict(found)


class Calibration:
    """Watches the ranges of activations while rows are scored: a forward for ``TextPipeline.score``.

    Args:
        graph: the fp32 graph.

    Raises:
        ExportError: the head's nodes are not found, so they could not be left as they are.
    """

    def __init__(self, graph: Path) -> None:
        model = onnx.load(graph)
        self.products = products(model, head_nodes(graph))
        for number, name in enumerate(self.products):
            axes = numpy_helper.from_array(np.array([0, 1], np.int64), f"watched_axes_{number}")
            model.graph.initializer.append(axes)
            model.graph.node.append(helper.make_node("Abs", [name], [f"watched_{number}"]))
            nodes = [f"watched_{number}", axes.name]
            model.graph.node.append(helper.make_node("ReduceMax", nodes, [f"range_{number}"], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(f"range_{number}", TensorProto.FLOAT, None))
        watched = graph.with_name("watched.onnx")
        onnx.save(model, watched)
        self._session = require("onnxruntime").InferenceSession(str(watched), providers=[CPU])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self.ranges: dict[str, NDArray[np.float32]] = {}

    def __call__(self, arrays: Arrays) -> NDArray[np.float32]:
        """Logits of a batch; its ranges are noted."""
        wanted = ["scores", *(f"range_{number}" for number in range(len(self.products)))]
        logits, *ranges = self._session.run(wanted, {name: arrays[name] for name in self._inputs})
        for name, found in zip(self.products, ranges, strict=True):
            self.ranges[name] = np.maximum(self.ranges.get(name, np.float32(0)), found)
        scores: NDArray[np.float32] = logits
        return scores


class Quantizer:
    """Writes quantised copies of a graph; what copies have in common is computed once.

    Args:
        graph: the fp32 graph.
        products: its products that become int8.
        ranges: what ``Calibration`` saw.
    """

    def __init__(self, graph: Path, products: Mapping[str, Sequence[Product]], ranges: Ranges) -> None:
        self._model = onnx.load(graph)
        self._products = products
        self._ranges = ranges
        self._quantised: dict[tuple[str, float], _Quantised] = {}

    def write(self, path: Path, smoothing: float, *, left: Sequence[str] = ()) -> None:
        """Write a copy to ``path``.

        Args:
            path: where it goes.
            smoothing: one of ``SMOOTHINGS``.
            left: activations whose products stay fp32.
        """
        replaced: dict[str, Sequence[NodeProto]] = {}
        constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        for number, (activation, group) in enumerate(self._products.items()):
            if activation in left:
                continue
            key = (activation, smoothing)
            if key not in self._quantised:
                written = _Quantised(f"int8_{number}")
                written.build(activation, group, self._ranges[activation], smoothing)
                self._quantised[key] = written
            replaced |= {product.node.name: () for product in group}
            replaced |= {product.addition.name: () for product in group if product.addition is not None}
            replaced[group[0].node.name] = self._quantised[key].nodes
            constants |= self._quantised[key].constants
        nodes = [new for node in self._model.graph.node for new in replaced.get(node.name, (node,))]
        used = {name for node in nodes for name in node.input}
        model = onnx.ModelProto()
        model.CopyFrom(_without(self._model))
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
        if all(opset.domain != MICROSOFT for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        onnx.save(model, path)


def _without(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model's frame: inputs, outputs and versions, without nodes and constants."""
    frame = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    frame.opset_import.extend(model.opset_import)
    frame.graph.name = model.graph.name
    frame.graph.input.extend(model.graph.input)
    frame.graph.output.extend(model.graph.output)
    return frame


class _Quantised:
    """Nodes and constants of the quantised products of one activation."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._prefix = prefix
        self._numbers = count()

    def build(self, activation: str, group: Sequence[Product], seen: NDArray[np.float32], share: float) -> None:
        """Quantise the activation once and multiply it by the weights of all its products."""
        heaviest = np.max([np.abs(product.weights).max(axis=1) for product in group], axis=0)
        smooth = np.maximum(seen, 1e-5) ** share / np.maximum(heaviest, 1e-5) ** (1 - share)
        smooth = (smooth / smooth.mean()).astype(np.float32)
        add, once = self._add, self._once
        x = add("Mul", [activation, self._constant(1 / smooth)])
        last, flat, zero = (
            once("last", np.array([-1], np.int64)),
            once("flat", np.array([-1], np.int64)),
            once("zero", np.float32(0)),
        )
        high = add("Max", [add("ReduceMax", [x, last], keepdims=1), zero])
        low = add("Min", [add("ReduceMin", [x, last], keepdims=1), zero])
        steps = once("steps", np.float32(1 / 255))
        scale = add("Max", [add("Mul", [add("Sub", [high, low]), steps]), once("tiny", TINY)])
        start = add("Round", [add("Neg", [add("Div", [low, scale])])])
        rows = add("Reshape", [x, once(f"width_{len(smooth)}", np.array([-1, len(smooth)], np.int64))])
        starts = add("Reshape", [add("Cast", [start], to=TensorProto.UINT8), flat])
        q = add("QuantizeLinear", [rows, add("Reshape", [scale, flat]), starts], axis=0)
        shape = add("Shape", [activation], start=0, end=-1)
        middle = add("Mul", [add("Sub", [once("middle", np.float32(128)), start]), scale])
        ones = add("Add", [add("Sub", [scale, scale]), once("one", np.float32(1))])
        corrections = add("Concat", [middle, ones], axis=-1)
        for product in group:
            weights = product.weights * smooth[:, None]
            unit = np.maximum(np.abs(weights).max(axis=0), TINY) / 127
            whole = np.clip(np.round(weights / unit), -127, 127).astype(np.int8)
            width = whole.shape[1]
            factors = [once("one", np.float32(1)), self._constant(unit), once("middle_u8", np.uint8(128))]
            multiplied = add("MatMulIntegerToFloat", [q, self._constant(whole), *factors], domain=MICROSOFT)
            to = add("Concat", [shape, once(f"columns_{width}", np.array([width], np.int64))], axis=0)
            scaled = add("Mul", [add("Reshape", [multiplied, to]), scale])
            bias = np.zeros(width, np.float32) if product.bias is None else product.bias
            sums = np.stack([whole.sum(axis=0, dtype=np.float32) * unit, bias])
            correction = add("MatMul", [corrections, self._constant(sums)])
            add("Add", [scaled, correction], (product.addition or product.node).output[0])

    def _add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        name = name or f"{self._prefix}_{kind}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"int8/{name}", **attributes))
        return name

    def _constant(self, value: NDArray[np.float32] | NDArray[np.int8]) -> str:
        return self._named(f"{self._prefix}_constant_{next(self._numbers)}", value)

    def _once(self, key: str, value: Any) -> str:
        """A constant that all groups share."""
        return self._named(f"int8_{key}", value)

    def _named(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name
