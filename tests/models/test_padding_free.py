"""Rows read without padding give the same hidden states, scores and gradients as padded ones."""

import copy

import numpy as np
import pytest
import torch

from ranker.errors import ConfigError
from ranker.models import backbones
from ranker.models.attention import padding_free
from ranker.records import Group
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline
from tests.conftest import tiny
from tests.models.test_reward import ANSWERS, PROMPT, trained

ROWS = [Group(PROMPT, ANSWERS), Group("Short.", ("yes", "a much longer answer than the others are " * 3))]


def arrays_of(model, pipeline):
    pipeline = TextPipeline(model.layout, pipeline.tokenizer)  # a row for every answer
    packed = [pipeline.pack(task) for task in pipeline.tokenize(ROWS)]
    arrays = batching.collate(model.layout, batching.units(packed))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def reads_the_same(model, scorer):
    arrays = arrays_of(model, scorer.pipeline)
    assert (arrays["block_ids"] < 0).any(), "there is padding to do without"
    free = copy.deepcopy(model.eval())
    backbones.read_without_padding(free)
    assert backbones.reads_packed(free.base_model)
    one, two = model(**arrays), free(**arrays)
    with padding_free.segments_known(arrays, torch.device("cpu")):
        assert torch.equal(free(**arrays), two)
    torch.testing.assert_close(two, one, atol=2e-5, rtol=1e-4)
    for result in (one, two):
        (result * torch.arange(result.numel()).view_as(result)).sum().backward()
    for (name, a), (_, b) in zip(model.named_parameters(), free.named_parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=2e-3, rtol=2e-3, msg=name)
    return True


@pytest.mark.parametrize(
    "family",
    [
        "bert",
        "roberta",
        "electra",
        "mpnet",
        "deberta-v2",
        "modernbert",
        "llama",
        "qwen3",
        "mistral",
        "gemma3_text",
        "gpt2",
    ],
)
def test_reward_models(family, tmp_path):
    _, scorer = trained(tmp_path, family)
    assert reads_the_same(scorer.model, scorer)


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        ("set_encoder", "bert"),
        ("set_encoder", "roberta"),
        ("set_encoder", "electra"),
        ("set_encoder", "deberta-v2"),
        ("set_encoder", "mpnet"),
        ("ordered_pair", "mpnet"),
        ("ordered_pair", "deberta-v2"),
        ("ordered_pair", "bert"),
        ("ordered_pair", "modernbert"),
    ],
)
def test_pair_rankers_whose_rows_see_each_other(layout, family):
    from ranker.models.torch_scorer import TorchScorer

    model, tokenizer = tiny(layout, family=family)
    assert reads_the_same(model, TorchScorer(model, tokenizer))


@pytest.mark.parametrize(
    ("family", "device"), [("deberta-v2", "cuda"), ("mpnet", "cuda"), ("gemma2", "cpu"), ("gemma2", "cuda")]
)
def test_families_without_a_kernel_are_refused(family, device, tmp_path):
    _, scorer = trained(tmp_path, family)
    with pytest.raises(ConfigError, match=f"attention of '{family}' has no variable-length kernel"):
        backbones.read_without_padding(scorer.model, device)


def test_a_convolution_reads_over_the_ends_of_rows_and_is_refused(tmp_path):
    model, _ = tiny("ordered_pair", family="deberta-v2")
    shape = model.base_model.config.to_dict() | {"conv_kernel_size": 3, "conv_act": "gelu"}
    model.base_model.encoder = backbones.build(type(model.base_model.config)(**shape)).encoder
    with pytest.raises(ConfigError, match="convolution of DeBERTa-v2 reads over the ends of rows"):
        backbones.read_without_padding(model)


def test_a_loaded_checkpoint_can_read_without_padding(tmp_path):
    import ranker

    folder, _ = trained(tmp_path, "bert")
    padded, free = (ranker.load(folder, device="cpu", padding_free=on) for on in (False, True))
    assert backbones.reads_packed(free.scorer.model.base_model)
    assert not backbones.reads_packed(padded.scorer.model.base_model)
    prompts, answers = ["Hi", PROMPT, "x " * 60], [["a"], list(ANSWERS), ["y " * 200, "z"]]
    for a, b in zip(padded.score_batch(prompts, answers), free.score_batch(prompts, answers), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="a model.onnx reads padded rows"):
        ranker.load(tmp_path / "model.onnx", padding_free=True)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_the_kernel_on_a_gpu_gives_what_padded_rows_give(family, tmp_path):
    _, scorer = trained(tmp_path, family)
    model = scorer.model.to("cuda").eval()
    arrays = {name: array.to("cuda") for name, array in arrays_of(model, scorer.pipeline).items()}
    free = copy.deepcopy(model)
    backbones.read_without_padding(free)
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(free(**arrays), model(**arrays), atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("shares_heads", [True, False], ids=["with enable_gqa", "as in torch 2.11"])
def test_the_kernel_is_asked_for_what_it_takes(shares_heads, monkeypatch):
    """Against attention row by row: a kernel that shares heads, and one that has no such argument."""

    def attend(q, k, v, starts, key_starts, longest, most_keys, *, scale=None, window_size=(-1, -1), heads=1):
        rows = [
            torch.nn.functional.scaled_dot_product_attention(
                *(states[a:b].transpose(0, 1)[None] for states in (q, k, v)), scale=scale, enable_gqa=heads > 1
            )[0].transpose(0, 1)
            for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        ]
        return torch.cat(rows)

    def newer(q, k, v, a, b, c, d, *, scale=None, window_size=(-1, -1), enable_gqa=False):
        assert enable_gqa
        return attend(q, k, v, a, b, c, d, scale=scale, heads=2)

    def older(q, k, v, a, b, c, d, *, scale=None, window_size=(-1, -1)):
        assert q.shape == k.shape
        return attend(q, k, v, a, b, c, d, scale=scale)

    torch.manual_seed(0)
    q, k, v = (torch.randn(9, heads, 8) for heads in (4, 2, 2))
    segments = padding_free.Segments.of(torch.tensor([[1] * 5 + [0], [1] * 4 + [0] * 2], dtype=torch.bool), None)
    expected = attend(q, k, v, segments.starts, None, 0, 0, scale=0.3, heads=2)
    monkeypatch.setattr(padding_free, "varlen_attn", newer if shares_heads else older)
    attended = padding_free.kernel_attention(q, k, v, segments, 0.3, (-1, -1))
    torch.testing.assert_close(attended, expected)


def test_a_torch_whose_kernel_lacks_what_is_needed_reads_padded_rows_with_one_line(tmp_path, monkeypatch, caplog):
    _, scorer = trained(tmp_path, "bert")
    monkeypatch.setattr(backbones, "kernel_options", lambda: frozenset({"scale"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backbones.read_without_padding(scorer.model)
    assert "varlen_attn has no window_size; rows are read padded" in caplog.text
    assert not backbones.reads_packed(scorer.model.base_model)
