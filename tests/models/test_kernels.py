"""The kernel of attention is the one that was asked for."""

import re

import pytest
from torch.profiler import ProfilerActivity, profile

import ranker
from ranker.errors import ConfigError
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime import manifest, onnx_scorer
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import open_session
from tests.conftest import tiny

GROUP = Group("What is it?", ("This.", "That, which is longer."))


def operations_of(scorer):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        scorer.score([GROUP])
    return {event.key for event in seen.key_averages()}


def test_a_chosen_kernel_is_used():
    fused, math = "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_attention_math"
    usual = operations_of(TorchScorer(*tiny("pointwise")))
    chosen = operations_of(TorchScorer(*tiny("pointwise"), attention_kernel="math"))
    assert (fused in usual, math in usual) == (True, False)
    assert (fused in chosen, math in chosen) == (False, True)


@pytest.mark.parametrize("kernel", ["efficient", "cudnn", "flash"])
def test_a_kernel_that_the_device_has_not_is_refused(kernel, model):
    for path in (model.parent / "checkpoint", model):
        with pytest.raises(ConfigError, match=f"attention_kernel .*{kernel}"):
            ranker.load(path, device="cpu", attention_kernel=kernel)


def test_a_session_on_cuda_gets_the_number_of_the_kernel(model, monkeypatch):
    import onnxruntime

    asked = []

    def refused(path, options, providers):
        asked.extend(providers)
        raise RuntimeError("no card here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refused)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ranker.ModelFileError, match="no card here"):
        open_session(model, device="cuda:1", attention_kernel="efficient")
    provider, options = asked[0]
    assert provider == "CUDAExecutionProvider"
    assert options == {
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "device_id": "1",
        "sdpa_kernel": "2",
    }


def pretend(monkeypatch, path, precision):
    """Let a file say that it has another precision."""
    stated, tokenizer = manifest.read(path)
    changed = stated.model_copy(update={"precision": precision})
    monkeypatch.setattr(manifest, "read", lambda path: (changed, tokenizer))


@pytest.mark.parametrize(("precision", "device"), [("int8", "cuda"), ("int8", "tensorrt"), ("int8-static", "cuda:1")])
def test_an_int8_file_is_refused_on_a_gpu(precision, device, model, monkeypatch):
    pretend(monkeypatch, model, precision)
    with pytest.raises(ConfigError, match=f"{precision} products have no kernel on {re.escape(device)}.*--precision"):
        OnnxScorer(model, device=device)


def test_an_int8_file_runs_on_the_cpu_where_no_device_is_asked_for(model, monkeypatch):
    pretend(monkeypatch, model, "int8")
    monkeypatch.setattr(onnx_scorer, "on_graphics", lambda device: device != "cpu")
    assert OnnxScorer(model).on_cpu


def test_buffers_are_not_bound_on_a_cpu(model):
    with pytest.raises(ConfigError, match="bind_buffers is for one pass in flight"):
        OnnxScorer(model, device="cpu", bind_buffers=True)
