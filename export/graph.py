"""From a torch ranker to an ONNX graph with named dynamic axes."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ranker.errors import ExportError
from ranker.export import storage
from ranker.models import decoders
from ranker.models.heads import HEAD_MODULES

OPSET: Final = 20
MICROSOFT: Final = "com.microsoft"
"""The domain of onnxruntime's own operators."""

SCOPES: Final = "pkg.torch.onnx.name_scopes"

AXES: Final = {
    "input_ids": ("batch", "sequence"),
    "block_ids": ("batch", "sequence"),
    "position_ids": ("batch", "sequence"),
    "readout": ("batch", "readouts"),
    "members": ("batch", "others"),
}
"""Inputs and their axes; all are dynamic."""


class Traceable(nn.Module):
    """Fixes the order of a ranker's inputs; masks are built inside the graph from ``block_ids``."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.last = "readout" if getattr(model, "prefix_sharing", False) else model.layout.extra_input

    def forward(self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor, last: Tensor | None = None) -> Tensor:
        """Logits (batch, candidates, outputs)."""
        extra = {} if self.last is None else {self.last: last}
        scores: Tensor = self.model(input_ids, block_ids, position_ids, **extra)
        return scores


def input_names(model: PreTrainedModel) -> list[str]:
    """The names of the graph's inputs, in order."""
    last = Traceable(model).last
    return ["input_ids", "block_ids", "position_ids", *([last] if last else [])]


def to_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write the fp32 graph of ``model`` to ``path``; output ``scores`` (batch, candidates, outputs).

    Weights that pass protobuf's limit go into a file beside it, which ``storage`` reads.
    """
    wrapper = Traceable(model.eval().float())
    names = input_names(model)
    shapes = tuple(dict.fromkeys(range(len(AXES[name])), torch.export.Dim.DYNAMIC) for name in names)
    decoder = getattr(model, "prefix_sharing", False)
    fusion = decoders.exportable(model.base_model) if decoder else contextlib.nullcontext()
    with warnings.catch_warnings(), _quiet_exporter(), torch.no_grad(), fusion:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            wrapper,
            tuple(_examples(model, names)),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["scores"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program; run again with --debug for its log")
    if sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) <= storage.LIMIT:
        onnx.save(_tidy(program.model_proto, names), path)
        return
    program.save(str(path), external_data=True)
    onnx.save(_tidy(storage.load(path), names), path)


def head_nodes(path: Path) -> list[str]:
    """Names of the head's nodes, which are never quantised: by their scope, or by the weights they read.

    Raises:
        ExportError: no node of the head was found, so quantising could change the head.
    """
    nodes = storage.load(path).graph.node
    nodes_of_head = [node.name for node in nodes if any(map(of_head, (node.name.partition("/")[0], *node.input)))]
    if not nodes_of_head:
        raise ExportError(f"{path}: found no node of the head, which must stay fp32; export only fp32")
    return nodes_of_head


def of_head(name: str) -> bool:
    """Whether the dotted name of a scope or weight belongs to the head."""
    return not set(HEAD_MODULES).isdisjoint(name.split("."))


def _tidy(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Name axes and nodes, and drop the exporter's leftovers: traces with local paths, stale shapes."""
    graph = proto.graph
    for value in graph.input:
        for axis, dimension in zip(AXES[value.name], value.type.tensor_type.shape.dim, strict=True):
            dimension.dim_param = axis
    for axis, dimension in zip(("batch", "candidates"), graph.output[0].type.tensor_type.shape.dim, strict=False):
        dimension.dim_param = axis
    for number, node in enumerate(graph.node):
        scopes = next((p.value for p in node.metadata_props if p.key == SCOPES), "[]")
        scope = ([s for s in ast.literal_eval(scopes) if s] or ["graph"])[-2:][0]
        node.name = f"{scope}/{node.op_type}_{number}"
        del node.metadata_props[:]
    del graph.value_info[:]
    del graph.metadata_props[:]
    del proto.metadata_props[:]
    del proto.functions[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    return proto


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's messages about packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _examples(model: PreTrainedModel, names: list[str]) -> list[Tensor]:
    rows, length = 3, 24
    blocks = torch.zeros(rows, length, dtype=torch.long)
    blocks[:, 8:16], blocks[:, 16:] = 1, 2
    blocks[1, 20:] = -1
    positions = torch.arange(length).expand(rows, length) + model.layout.position_offset
    last = {
        "readout": torch.tensor([[1, 9, 17], [1, 9, 17], [1, 9, -1]]),
        "members": torch.tensor([[1, 2], [0, 2], [0, 1]]),
    }
    text_inputs = {
        "input_ids": torch.randint(5, 10, (rows, length)),
        "block_ids": blocks,
        "position_ids": positions.contiguous(),
    }
    return [(text_inputs | last)[name] for name in names]
