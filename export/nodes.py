"""Products of a graph, and the nodes that replace them when they are quantised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ranker.export import rounding
from ranker.export.graph import MICROSOFT
from ranker.export.rounding import TINY, Rounded, factors

FP32_PRODUCTS: Final = 1
"""``MatMulNBits``' accuracy level under which it multiplies in fp32; in 8 bits it is slower than fp32 products."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product with constant weights, and the addition of its bias if it has one."""

    node: NodeProto
    weights: NDArray[np.float32]
    addition: NodeProto | None
    bias: NDArray[np.float32] | None


class QuantizedNodes:
    """Nodes and constants of the quantised products of one activation.

    Args:
        prefix: the beginning of all their names.
    """

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._prefix = prefix
        self._numbers = count()

    def fused(self, activation: str, group: Sequence[Product], numbers: Rounded) -> None:
        """Quantise the activation once and multiply it by the weights of all its products, with onnxruntime's nodes."""
        add, once = self._add, self._once
        x = self._smoothed(activation, numbers)
        zero_point = self._constant(np.uint8(numbers.zero_point))
        if numbers.scale is None:
            scale, q = self._token_scales(x, numbers, zero_point)
            step = once("one", np.float32(1))
        else:
            step = self._constant(numbers.scale)
            q = add("QuantizeLinear", [x, step, zero_point])
        channels = self._outlier_channels(activation, numbers)
        for number, product in enumerate(group):
            output = _output(product)
            bias = "" if product.bias is None else self._constant(product.bias + numbers.shift[number])
            weights, weight_scale = (
                self._constant(numbers.weights[number]),
                self._constant(numbers.weight_scale[number]),
            )
            factors = [q, weights, step, weight_scale, zero_point, ""]
            if channels:
                outlier_weights = self._constant(numbers.outlier_weights[number])
                multiplied = add("MatMulIntegerToFloat", [*factors, bias], domain=MICROSOFT)
                add("Add", [multiplied, add("MatMul", [channels, outlier_weights])], output)
                continue
            if numbers.scale is not None:
                add("MatMulIntegerToFloat", [*factors, bias], output, domain=MICROSOFT)
                continue
            multiplied = add("MatMulIntegerToFloat", factors, domain=MICROSOFT)
            scaled = add("Mul", [multiplied, scale], "" if bias else output)
            if bias:
                add("Add", [scaled, bias], output)

    def qdq(self, activation: str, group: Sequence[Product], numbers: Rounded) -> None:
        """``fused`` with a fixed scale and standard ONNX nodes, which engines fuse."""
        add = self._add
        x = self._smoothed(activation, numbers)
        grid = [self._constant(numbers.scale), self._constant(np.uint8(numbers.zero_point))]
        x = add("DequantizeLinear", [add("QuantizeLinear", [x, *grid]), *grid])
        channels = self._outlier_channels(activation, numbers)
        for number, product in enumerate(group):
            factors = [self._constant(numbers.weights[number]), self._constant(numbers.weight_scale[number])]
            terms = [self._constant(product.bias + numbers.shift[number])] if product.bias is not None else []
            if channels:
                terms.append(add("MatMul", [channels, self._constant(numbers.outlier_weights[number])]))
            weights = add("DequantizeLinear", factors, axis=1)
            total = add("MatMul", [x, weights], "" if terms else _output(product))
            for term in reversed(terms):
                total = add("Add", [total, term], _output(product) if term is terms[0] else "")

    def blocks(self, activation: str, group: Sequence[Product]) -> None:
        """Multiply in fp32 by 8-bit weights with a scale per ``BLOCK`` inputs."""
        for product in group:
            uint8_weights, scales = rounding.blocks(product.weights)
            factors = [activation, self._constant(uint8_weights), self._constant(scales)]
            inputs, outputs = product.weights.shape
            settings = {
                "K": inputs,
                "N": outputs,
                "bits": 8,
                "block_size": rounding.BLOCK,
                "accuracy_level": FP32_PRODUCTS,
            }
            bias = product.bias
            name = "" if bias is not None else _output(product)
            multiplied = self._add("MatMulNBits", factors, name, domain=MICROSOFT, **settings)
            if bias is not None:
                self._add("Add", [multiplied, self._constant(bias)], _output(product))

    def _smoothed(self, activation: str, numbers: Rounded) -> str:
        """The activation with the ranges of its channels moved; itself where they are not."""
        if np.all(numbers.smoothing == 1):
            return activation
        return self._add("Mul", [activation, self._constant(1 / numbers.smoothing)])

    def _outlier_channels(self, activation: str, numbers: Rounded) -> str:
        """The outlier channels of the activation; empty without."""
        if not len(numbers.outliers):
            return ""
        return self._add("Gather", [activation, self._constant(numbers.outliers)], axis=-1)

    def _token_scales(self, x: str, numbers: Rounded, zero_point: str) -> tuple[str, str]:
        """Every token's scale (..., 1), and the activation quantised by them."""
        add, once = self._add, self._once
        last, flat = once("last", np.array([-1], np.int64)), once("flat", np.array([-1], np.int64))
        above, below = map(self._constant, factors(numbers.zero_point))
        high = add("Mul", [add("ReduceMax", [x, last], keepdims=1), above])
        low = add("Mul", [add("ReduceMin", [x, last], keepdims=1), below])
        scale = add("Max", [add("Max", [high, low]), once("tiny", TINY)])
        flat_scale = add("Reshape", [scale, flat])
        width = len(numbers.smoothing)
        rows = add("Reshape", [x, once(f"width_{width}", np.array([-1, width], np.int64))])
        zero_points = add("Expand", [zero_point, add("Shape", [flat_scale])])
        q = add("QuantizeLinear", [rows, flat_scale, zero_points], axis=0)
        return scale, add("Reshape", [q, add("Shape", [x])])

    def _add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        name = name or f"{self._prefix}_{kind}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"int8/{name}", **attributes))
        return name

    def _constant(self, value: Any) -> str:
        return self._named(f"{self._prefix}_constant_{next(self._numbers)}", value)

    def _once(self, key: str, value: Any) -> str:
        """A constant that all groups share."""
        return self._named(f"int8_{key}", value)

    def _named(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name


def _output(product: Product) -> str:
    return str((product.addition or product.node).output[0])
