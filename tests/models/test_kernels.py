"""The kernel of attention is the one that was asked for."""

import re

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import ranker
from ranker.errors import ConfigError
from ranker.models.attention.kernels import attention_kernel
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime import manifest, onnx_scorer
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import open_session
from ranker.scoring import batching
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


@pytest.mark.full
@pytest.mark.parametrize("layout", ["pointwise", "set_encoder", "shared_prompt"])
def test_compiled_attention_gives_the_same_scores_and_gradients(layout):
    """For any shape; torch compiles for a minute."""
    model, tokenizer = tiny(layout, family="deberta-v2")
    plain, compiled = (TorchScorer(model, tokenizer, attention_kernel=name) for name in ("auto", "compiled"))
    for groups in ([GROUP], [GROUP, Group("Another, longer question?", ("a", "b", "c " * 9))]):
        for a, b in zip(plain.score(groups), compiled.score(groups), strict=True):
            assert b.error is None
            np.testing.assert_allclose(b.scores, a.scores, rtol=1e-4, atol=1e-5)
    gradients = []
    for name in ("auto", "compiled"):
        model.zero_grad()
        packed = [plain.pipeline.pack(tokens) for tokens in plain.pipeline.tokenize([GROUP])]
        arrays = batching.collate(model.layout, batching.units(packed))
        with attention_kernel(name, "cpu"):
            out = model(**{key: torch.from_numpy(array) for key, array in arrays.items()})
            (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


def test_a_kernel_of_another_family_is_refused():
    with pytest.raises(ConfigError, match="attention_kernel 'math' is not one of 'deberta-v2'; take auto or compiled"):
        TorchScorer(*tiny("pointwise", family="deberta-v2"), attention_kernel="math")
    with pytest.raises(ConfigError, match="attention_kernel 'compiled' is not one of 'bert'; take auto or efficient"):
        TorchScorer(*tiny("pointwise"), attention_kernel="compiled")


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options", [{"attention_kernel": "efficient"}, {"attention_kernel": "cudnn"}, {"passes_in_flight": 3}]
)
def test_ways_to_score_on_a_gpu_give_the_same_scores(options, model):
    checkpoint = model.parent / "checkpoint"
    plain, other = (ranker.load(checkpoint, device="cuda", precision="bf16", **more) for more in ({}, options))
    prompts, answers = ["What is it?"] * 40, [["This.", "That, which is longer. " * (1 + n % 7)] for n in range(40)]
    for a, b in zip(plain.score_batch(prompts, answers), other.score_batch(prompts, answers), strict=True):
        np.testing.assert_allclose(b, a, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("kernel", ["efficient", "cudnn", "flash"])
def test_a_kernel_that_the_device_has_not_is_refused(kernel, model):
    for path in (model.parent / "checkpoint", model):
        with pytest.raises(ConfigError, match=f"attention_kernel .*{kernel}"):
            ranker.load(path, device="cpu", attention_kernel=kernel)


def test_cuda_leaves_out_the_kernel_that_plans_for_every_shape():
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with attention_kernel("auto", "cuda"):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with attention_kernel("auto", "cpu"):
        assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(("kernel", "number"), [("auto", "3"), ("efficient", "2"), ("cudnn", "8")])
def test_a_session_on_cuda_gets_the_number_of_the_kernel(kernel, number, model, monkeypatch):
    import onnxruntime

    asked = []

    def refused(path, options, providers):
        asked.extend(providers)
        raise RuntimeError("no card here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refused)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ranker.ModelFileError, match="no card here"):
        open_session(model, device="cuda:1", attention_kernel=kernel)
    provider, options = asked[0]
    assert provider == "CUDAExecutionProvider"
    assert options == {
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "device_id": "1",
        "sdpa_kernel": number,
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
