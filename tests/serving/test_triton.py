"""The model repository, and the Python backend with Triton's module in miniature."""

import importlib.util
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ranker
from ranker.errors import ConfigError, ModelFileError
from ranker.serving import triton
from tests.test_cli import ranker_cli


class Tensor:
    def __init__(self, name, values):
        self.name, self.values = name, values

    def as_numpy(self):
        return self.values


@pytest.fixture
def backend(monkeypatch):
    module = SimpleNamespace(
        Tensor=Tensor,
        InferenceResponse=lambda output_tensors: output_tensors,
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def request(*items):
    return {"ITEM": Tensor("ITEM", np.array([[item] for item in items], dtype=object))}


def test_a_dynamic_batch_is_scored_as_the_library_scores(model, tmp_path, backend):
    done = ranker_cli("convert", model, tmp_path / "repository", "--to", "triton")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "repository" / "ranker"
    config = (folder / "config.pbtxt").read_text()
    assert config.count("{") == config.count("}")
    assert re.search(r"max_batch_size: 256\n", config)
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    served = module.TritonPythonModel()
    served.initialize({"model_repository": str(folder), "model_version": "1", "model_instance_kind": "CPU"})
    items = [{"prompt": f"p {i}", "candidates": ["a saw", "pear " * i]} for i in range(1, 5)]
    encoded = [json.dumps(item).encode() for item in items]
    responses = served.execute(
        [request(*encoded[:3]), request(b"{bad"), request(encoded[3]), request(b'{"prompt": 1}')]
    )
    result = [[json.loads(answer) for answer in tensors[0].as_numpy().reshape(-1)] for tensors in responses]
    assert [len(batch) for batch in result] == [3, 1, 1, 1]
    assert responses[0][0].as_numpy().shape == (3, 1)
    expected = ranker.load(model).score_batch([i["prompt"] for i in items], [i["candidates"] for i in items])
    for answer, scores in zip([*result[0], *result[2]], expected, strict=True):
        assert answer["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
    assert "invalid JSON" in result[1][0]["error"]
    assert result[3][0]["scores"] is None


def test_what_is_no_model_is_refused(model, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no")
    with pytest.raises(ModelFileError):
        triton.write(tmp_path / "no.onnx", tmp_path / "repository")
    triton.write(model, tmp_path / "repository", name="x", gpu=True)
    assert "KIND_GPU" in (tmp_path / "repository" / "x" / "config.pbtxt").read_text()
    with pytest.raises(ConfigError, match="is there already"):
        triton.write(model, tmp_path / "repository", name="x")
