import hashlib

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ranker.errors import ModelFileError
from ranker.runtime import modelfile


@pytest.fixture
def plain(tmp_path):
    """A small ONNX file as the onnx package writes it, with metadata of its own."""
    weight = numpy_helper.from_array(np.arange(300, dtype=np.float32), "w")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [300])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [300])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [out], [weight])
    model = helper.make_model(graph, producer_name="test")
    helper.set_model_props(model, {"old": "entry"})
    onnx.save(model, tmp_path / "plain.onnx")
    return tmp_path / "plain.onnx"


def test_metadata_is_what_the_onnx_package_reads(plain, tmp_path):
    entries = {"a": "x" * 100_000, "b": "\u00e9\U0001f642", "": ""}
    modelfile.write(tmp_path / "out.onnx", plain, entries)
    proto = onnx.load(tmp_path / "out.onnx")
    assert {p.key: p.value for p in proto.metadata_props} == entries == modelfile.read(tmp_path / "out.onnx")[0]
    assert proto.graph == onnx.load(plain).graph
    assert modelfile.read(plain)[0] == {"old": "entry"}


def test_the_digest_covers_everything_but_the_metadata(plain, tmp_path):
    before = modelfile.read(plain)[1]
    modelfile.write(tmp_path / "out.onnx", plain, {"a": "b"})
    assert modelfile.read(tmp_path / "out.onnx")[1] == before
    proto = onnx.load(plain)
    del proto.metadata_props[:]
    assert hashlib.sha256(proto.SerializeToString()).hexdigest() == before


def test_every_flipped_byte_changes_what_is_read(plain):
    metadata, digest = modelfile.read(plain)
    data = plain.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(data), 200, replace=False):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        plain.write_bytes(changed)
        assert reading(plain) != (metadata, digest)


def reading(path):
    try:
        return modelfile.read(path)
    except ModelFileError as error:
        return str(error)


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x0b\x00", b"\x3a\xff\xff\xff\xff\x0f", b"plain text"])
def test_what_is_no_protobuf_is_refused(content, tmp_path):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match="not an ONNX"):
        modelfile.read(tmp_path / "x.onnx")
