"""A model.onnx whose hashes are right and whose content is not: refused in a line, or its rows get an error."""

import json
import resource
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ranker
from ranker.errors import ModelFileError, RankerError
from ranker.records import Group
from ranker.runtime import manifest, modelfile
from tests.hostile.checkpoints import JUNK
from tests.hostile.test_tokenizers import HOSTILE


def rewritten(source, target, *, values=None, tokenizer=None, graph=None):
    """A model file with another manifest, tokenizer or graph, and the hashes that fit."""
    if graph is not None:
        base = target.with_suffix(".graph")
        onnx.save(graph, base)
    else:
        base = source
    entries, _ = modelfile.read(source)
    text = entries[manifest.TOKENIZER_KEY] if tokenizer is None else tokenizer
    modelfile.write(target, base, {})
    fields = json.loads(entries[manifest.MANIFEST_KEY])
    fields |= {"graph_sha256": modelfile.read(target)[1], "tokenizer_sha256": manifest.sha256(text)}
    content = values(fields) if values else json.dumps(fields)
    modelfile.write(
        target,
        base,
        {
            manifest.MANIFEST_KEY: content,
            manifest.DIGEST_KEY: manifest.sha256(content),
            manifest.TOKENIZER_KEY: text,
        },
    )
    return target


def changed(**changes):
    return lambda fields: json.dumps(fields | changes)


def in_text(**changes):
    return lambda fields: json.dumps(fields | {"text": fields["text"] | changes})


def calibrated(**changes):
    return lambda fields: json.dumps(fields | {"calibration": {**fields["calibration"], **changes}})


MANIFESTS = {
    **{
        f"junk: {name}": lambda fields, content=content: content.decode("utf-8", "replace")
        for name, content in JUNK.items()
        if name != "large"
    },
    "no version": changed(format_version=None),
    "version as text": changed(format_version="5"),
    "a later version": changed(format_version=99),
    "unknown type": changed(type="nothing"),
    "unknown field": changed(code="import os"),
    "labels as number": changed(labels=3),
    "precision": changed(precision="int3"),
    "large ids": in_text(pad_id=10**12),
    "negative large ids": in_text(pad_id=-(10**12)),
    "ids as text": in_text(pad_id="x"),
    "ids in the text's structure": in_text(prefix=[10**12]),
    "unknown layout": in_text(layout="nothing"),
    "long rows": in_text(max_length=10**12),
    "no length": in_text(max_length=0),
    "prompt longer than the row": in_text(prompt_reserve=10**9),
    "large offset": in_text(position_offset=10**12),
    "temperature 0": calibrated(temperature=0),
    "negative temperature": calibrated(temperature=-1),
    "infinite temperature": lambda fields: json.dumps(fields).replace('"temperature": 1.0', '"temperature": 1e999'),
    "deviation 0": calibrated(std=0),
    "calibration as list": changed(calibration=[]),
    "weights elsewhere": changed(weights={"name": "../other.data", "size": 1, "sha256": "0"}),
    "weights that are not there": changed(weights={"name": "other.data", "size": 1, "sha256": "0"}),
    "weights of a negative size": changed(weights={"name": "model.onnx", "size": -1, "sha256": "0"}),
}


def loaded(path):
    """What loading and scoring says is wrong, and the seconds."""
    started = time.perf_counter()
    try:
        result = ranker.load(path).scorer.score([Group("What?", ("That.", "This one."))])[0]
        text = result.error
    except RankerError as error:
        text = str(error)
    return text, time.perf_counter() - started


def is_refusal(text, seconds, before):
    """Whether an error is a line, came soon, and cost no memory."""
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    is_line = bool(text) and "\n" not in text and len(text) < 900
    return is_line and seconds < 5 and grown < 500_000  # a second, on a machine that does nothing else


@pytest.mark.parametrize("name", MANIFESTS)
def test_an_odd_manifest_is_refused_in_a_line(name, pointwise, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = rewritten(pointwise, tmp_path / "model.onnx", values=MANIFESTS[name])
    text, seconds = loaded(path)
    assert is_refusal(text, seconds, before)
    with pytest.raises(ModelFileError):
        manifest.read(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_in_a_model_file_is_refused_in_a_line(name, pointwise, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text, seconds = loaded(rewritten(pointwise, tmp_path / "model.onnx", tokenizer=HOSTILE[name]))
    assert is_refusal(text, seconds, before)
    assert "the tokenizer cannot be read" in text


def graph_of(*nodes, initializers=(), outputs=None):
    """A graph with the inputs of a pointwise model."""
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"])
        for n in ("input_ids", "block_ids", "position_ids")
    ]
    output = outputs or helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", inputs, [output], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def constant(name, values, kind=np.int64):
    return numpy_helper.from_array(np.array(values, kind), name)


def scores_of(shape, value=1.0):
    """Scores of one shape, whatever is read."""
    node = helper.make_node(
        "Constant", [], ["scores"], value=numpy_helper.from_array(np.full(shape, value, np.float32))
    )
    return graph_of(node)


GRAPHS = {
    "no rows": scores_of((0, 1, 1)),
    "two dimensions": scores_of((2, 1)),
    "a number": scores_of(()),
    "NaN": scores_of((2, 1, 1), np.nan),
    "infinity": scores_of((2, 1, 1), np.inf),
    "no candidates": scores_of((2, 0, 1)),
    "no outputs": scores_of((2, 1, 0)),
    "whole numbers": graph_of(
        helper.make_node("Shape", ["input_ids"], ["scores"]),
        outputs=helper.make_tensor_value_info("scores", TensorProto.INT64, None),
    ),
    "another output": graph_of(
        helper.make_node("Cast", ["input_ids"], ["other"], to=TensorProto.FLOAT),
        outputs=helper.make_tensor_value_info("other", TensorProto.FLOAT, None),
    ),
    "unknown operator": graph_of(helper.make_node("Nothing", ["input_ids"], ["scores"])),
    "operator of a library": graph_of(helper.make_node("Nothing", ["input_ids"], ["scores"], domain="stranger")),
    "wrong shapes": graph_of(
        helper.make_node("Reshape", ["input_ids", "shape"], ["r"]),
        helper.make_node("Cast", ["r"], ["scores"], to=TensorProto.FLOAT),
        initializers=[constant("shape", [7, 7, 7])],
    ),
    "ids beyond the table": graph_of(
        helper.make_node("Gather", ["table", "input_ids"], ["scores"]),
        initializers=[constant("table", [[1.0]], np.float32)],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_no_model_gives_no_score(name, pointwise, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text, seconds = loaded(rewritten(pointwise, tmp_path / "model.onnx", graph=GRAPHS[name]))
    assert is_refusal(text, seconds, before)


@pytest.mark.parametrize("place", ["initializer", "constant", "constant in a branch"])
def test_weights_in_a_file_that_has_no_hash_are_refused(place, pointwise, tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1, 2], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    node = helper.make_node("Constant", [], ["w"], value=tensor)
    if place == "initializer":
        graph = graph_of(helper.make_node("Identity", ["w"], ["scores"]), initializers=[tensor])
    elif place == "constant":
        graph = graph_of(node, helper.make_node("Identity", ["w"], ["scores"]))
    else:
        kind = helper.make_tensor_value_info("w", TensorProto.FLOAT, None)
        branch = helper.make_graph([node], "then", [], [kind])
        graph = graph_of(
            helper.make_node("If", ["yes"], ["scores"], then_branch=branch, else_branch=branch),
            initializers=[constant("yes", True, np.bool_)],
        )
    text, _ = loaded(rewritten(pointwise, tmp_path / "model.onnx", graph=graph))
    assert "takes weights from a file that its manifest does not name" in text


def test_a_model_file_that_was_rewritten_with_right_hashes_scores_as_before(pointwise, tmp_path):
    group = [Group("What?", ("That.", "This one."))]
    before = ranker.load(pointwise).scorer.score(group)[0].scores
    after = ranker.load(rewritten(pointwise, tmp_path / "model.onnx")).scorer.score(group)[0].scores
    assert before.tolist() == after.tolist()
