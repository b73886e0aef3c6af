"""Nodes of a graph that onnxruntime computes faster: written as its own operators, or without a mask of no padding.

onnxruntime fuses fp32 graphs when it opens them. In an fp16 graph casts lie between the nodes and it fuses little of
it, so they are fused before the conversion. Its attention on a CPU is faster without a mask, also one of zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import onnx
from onnx import NodeProto, TensorProto, helper

from ranker.export.graph import MICROSOFT

ATTENTION: Final = "MultiHeadAttention"
BIAS_INPUT: Final = 5
"""The input of ``MultiHeadAttention`` that is added to the scores."""

LENGTHS_INPUT: Final = 4
"""Its input that says how many keys of each row there are."""

MASK_STEPS: Final = ("Where", "Not", "Expand", "Unsqueeze", "Cast", "Slice")
"""What lies between the comparison that finds padding and the bias that is made of it.

A slice takes the mask of some queries, and all queries have the same.
"""


class Fusion:
    """Rewrites the nodes of a graph in place; constants are left as they are.

    Args:
        model: the graph; its initializers may lie beside it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._dimensions = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
        self._index()

    def fuse(self) -> None:
        """Fuse biases with GELU, and sums with the norms after them; drop views around attention."""
        self._drop_views()
        self._fuse_gelu()
        self._fuse_norms()

    def use_key_lengths(self) -> int:
        """Give attention the rows' lengths in the place of an additive mask; the number of nodes that were changed.

        Only where the mask is padding at the ends of rows and nothing else: a row then has as many keys as it has
        tokens. Attention with a bias of positions, blocks or exchanged states keeps its mask.
        """
        changed = 0
        for node in self._nodes(ATTENTION):
            if self._is_padding(node):
                self._set_input(node, LENGTHS_INPUT, self._lengths())
                self._set_input(node, BIAS_INPUT, "")
                changed += 1
        self._sweep()
        return changed

    def skip_mask(self) -> int:
        """Leave the mask of padding out in passes without padding; the number of attention nodes that were changed.

        Each becomes an ``If`` with and without the mask. Attention whose mask says more keeps it.
        """
        replaced = {node.name: self._without_mask(node) for node in self._nodes(ATTENTION) if self._is_padding(node)}
        if replaced:
            least = helper.make_node("ReduceMin", ["block_ids"], ["least_block"], name="graph/least_block", keepdims=0)
            zero = helper.make_tensor("no_block", TensorProto.INT64, [], [0])
            whole = helper.make_node("GreaterOrEqual", ["least_block", "no_block"], ["no_padding"], name="graph/whole")
            self._graph.initializer.append(zero)
            self._write([least, whole, *(replaced.get(node.name, node) for node in list(self._graph.node))])
        return len(replaced)

    def _without_mask(self, node: NodeProto) -> NodeProto:
        """An ``If``: the node without its mask where there is no padding, else the node."""
        branches: dict[str, onnx.GraphProto] = {}
        for branch in ("then_branch", "else_branch"):
            copy = NodeProto.FromString(node.SerializeToString())
            copy.name, output = f"{node.name}/{branch}", f"{node.output[0]}/{branch}"
            copy.output[0] = output
            if branch == "then_branch":
                self._set_input(copy, BIAS_INPUT, "")
            value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
            branches[branch] = helper.make_graph([copy], copy.name, [], [value])
        return helper.make_node("If", ["no_padding"], node.output, name=node.name, **branches)

    def _index(self) -> None:
        self._producers = {output: node for node in self._graph.node for output in node.output}
        self._uses = Counter(name for node in self._graph.node for name in node.input)
        self._uses.update(value.name for value in self._graph.output)

    def _nodes(self, *kinds: str) -> list[NodeProto]:
        return [node for node in self._graph.node if node.op_type in kinds]

    def _before(self, name: str) -> NodeProto | None:
        return self._producers.get(name)

    def _drop_views(self) -> None:
        """Heads are split off and joined again around attention, which takes and gives (rows, sequence, hidden)."""
        for node in self._nodes(ATTENTION):
            for number, name in enumerate(list(node.input)[:3]):
                source = self._without_views(name)
                if source != name and self._is_projection(source):
                    node.input[number] = source
        for node in self._nodes("MatMul"):
            source = self._without_views(node.input[0])
            before = self._before(source)
            if source != node.input[0] and before is not None and before.op_type == ATTENTION:
                node.input[0] = source
        self._sweep()

    def _without_views(self, name: str) -> str:
        node = self._before(name)
        while node is not None and node.op_type == "Reshape":
            name = node.input[0]
            node = self._before(name)
        return name

    def _is_projection(self, name: str) -> bool:
        """Whether a value is (rows, sequence, features): a product with a matrix of weights, its bias added or not."""
        node = self._before(name)
        if node is not None and node.op_type == "Add":
            node = next((n for n in map(self._before, node.input) if n is not None and n.op_type == "MatMul"), None)
        return node is not None and node.op_type == "MatMul" and self._dimensions.get(node.input[1]) == 2

    def _bias_and_rest(self, name: str) -> tuple[str, str] | None:
        """The bias (features,) and the other operand, of a sum that nothing else reads."""
        node = self._before(name)
        if node is None or node.op_type != "Add" or self._uses[name] != 1:
            return None
        return next(
            ((bias, rest) for bias, rest in (node.input, reversed(node.input)) if self._dimensions.get(bias) == 1), None
        )

    def _fuse_gelu(self) -> None:
        replaced: dict[str, NodeProto] = {}
        for node in self._nodes("Gelu"):
            parts = self._bias_and_rest(node.input[0])
            tanh = any(attribute.name == "approximate" and attribute.s == b"tanh" for attribute in node.attribute)
            if parts is not None:
                bias, rest = parts
                kind = "FastGelu" if tanh else "BiasGelu"
                replaced[node.name] = helper.make_node(
                    kind, [rest, bias], node.output, name=node.name, domain=MICROSOFT
                )
        self._replace(replaced)

    def _fuse_norms(self) -> None:
        replaced: dict[str, NodeProto] = {}
        for node in self._nodes("LayerNormalization"):
            total = self._before(node.input[0])
            if total is None or total.op_type != "Add" or any(name in self._dimensions for name in total.input):
                continue
            first, second = total.input
            if not self._is_projection(first):
                first, second = second, first
            if not self._is_projection(first) or len(node.input) < 3:
                continue
            bias, states = self._bias_and_rest(first) or ("", first)
            used_elsewhere = self._uses[total.output[0]] > 1
            inputs = [states, second, *node.input[1:3], *([bias] if bias else [])]
            outputs = [node.output[0], *(["", "", total.output[0]] if used_elsewhere else [])]
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            replaced[node.name] = helper.make_node(
                "SkipLayerNormalization", inputs, outputs, name=node.name, domain=MICROSOFT, epsilon=epsilon
            )
            if used_elsewhere:
                total.output[0] = f"{total.output[0]}_fused"  # dropped below: nothing reads it
        self._replace(replaced)

    def _is_padding(self, node: NodeProto) -> bool:
        if len(node.input) <= BIAS_INPUT or not node.input[BIAS_INPUT]:
            return False
        names, comparisons = [node.input[BIAS_INPUT]], []
        while names:
            before = self._before(names.pop())
            if before is None or before.op_type in ("Shape", "Concat"):
                continue
            if before.op_type in MASK_STEPS:
                names += before.input
            else:
                comparisons.append(before)
        kinds = {(comparison.op_type, comparison.input[0]) for comparison in comparisons}
        # An Expand of the lowest number, in the shape of the mask, is a constant; its shape is not followed.
        return kinds == {("GreaterOrEqual", "block_ids")}

    def _lengths(self) -> str:
        """The value (rows,) int32 of the rows' lengths, added to the graph where it has none."""
        name = "key_lengths"
        if name in self._producers:
            return name
        comparison = next(n for n in self._nodes("GreaterOrEqual") if n.input[0] == "block_ids")
        place = list(self._graph.node).index(comparison) + 1
        axes = helper.make_tensor("key_lengths_axes", TensorProto.INT64, [1], [1])
        self._graph.initializer.append(axes)
        present = helper.make_node(
            "Cast", comparison.output, ["key_present"], name="graph/key_present", to=TensorProto.INT32
        )
        total = helper.make_node("ReduceSum", ["key_present", axes.name], [name], name="graph/key_lengths", keepdims=0)
        self._graph.node.insert(place, present)
        self._graph.node.insert(place + 1, total)
        self._index()
        return name

    def _set_input(self, node: NodeProto, number: int, name: str) -> None:
        inputs = list(node.input) + [""] * (number + 1 - len(node.input))
        inputs[number] = name
        while inputs and not inputs[-1]:
            inputs.pop()
        del node.input[:]
        node.input.extend(inputs)

    def _replace(self, nodes: dict[str, NodeProto]) -> None:
        self._write(nodes.get(node.name, node) for node in list(self._graph.node))
        self._sweep()

    def _sweep(self) -> None:
        """Drop nodes whose outputs nothing reads, and constants that nothing reads then."""
        while True:
            self._index()
            kept = [node for node in self._graph.node if any(self._uses[output] for output in node.output)]
            if len(kept) == len(self._graph.node):
                break
            self._write(kept)
        constants = [tensor for tensor in self._graph.initializer if self._uses[tensor.name]]
        if len(constants) < len(self._graph.initializer):
            copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in constants]
            del self._graph.initializer[:]
            self._graph.initializer.extend(copies)

    def _write(self, nodes: Iterable[NodeProto]) -> None:
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        self._index()
