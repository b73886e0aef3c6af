"""Weights in 4 and 8 bits and over a device map: the head stays whole, and a truncated file is refused by name."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

import ranker
from ranker.checkpoints import native
from ranker.errors import CheckpointError, ConfigError
from ranker.runtime import session
from tests.checkpoints.layouts import CHECKPOINTS, decoder, pairrm
from tests.conftest import tokenizer_json
from tests.models.test_reward import ANSWERS, PROMPT, save_tokenizer


def test_bf16_is_offered_for_checkpoints_and_refused_for_files_that_have_a_precision(tmp_path, monkeypatch, caplog):
    checkpoint = CHECKPOINTS["HF sequence classification (encoder)"](tmp_path)
    monkeypatch.setattr(session, "PROCESSOR", tmp_path / "cpuinfo")
    session.PROCESSOR.write_text("processor : 0\nflags : fpu avx2\n")
    loaded = ranker.load(checkpoint.folder, precision="bf16", device="cpu")
    assert "this CPU has no bf16 instructions" in caplog.text
    scores = loaded.score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, checkpoint.scores, atol=0.05)
    assert np.abs(scores - checkpoint.scores).max() > 1e-6
    assert scores.dtype == np.float32
    with pytest.raises(ConfigError, match="expected precision fp32, bf16, auto, got 'fp8'"):
        ranker.load(checkpoint.folder, precision="fp8")
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match="has the precision it was exported in"):
        ranker.load(tmp_path / "model.onnx", precision="bf16")


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_quantized_backbone_keeps_its_head(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = tmp_path / "wide"  # bitsandbytes' blocks on a CPU are 64 wide
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=128,
        max_position_embeddings=160,
        pad_token_id=0,
        num_labels=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    save_tokenizer(folder, "llama", tokenizer_json())
    expected = ranker.load(folder).score(PROMPT, list(ANSWERS))
    loaded = ranker.load(folder, quantization=kind)
    model = loaded.scorer.model
    assert type(model.score) is torch.nn.Linear
    assert model.score.weight.dtype == torch.float32
    assert type(model.model.layers[0].self_attn.q_proj) is not torch.nn.Linear
    scores = loaded.score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, expected, atol=0.5 * np.ptp(expected))


def test_a_device_map_is_followed_and_scores_the_same(tmp_path):
    checkpoint = decoder(tmp_path)
    scores = ranker.load(checkpoint.folder, device_map={"": "cpu"}).score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-5, atol=1e-5)
    file = checkpoint.folder / checkpoint.file
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or truncated"):
        ranker.load(checkpoint.folder, device_map={"": "cpu"})


def test_what_cannot_be_quantized_says_so(tmp_path):
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ConfigError, match="quantization is for reward models"):
        ranker.load(pairrm(tmp_path).folder, quantization="4bit")


def test_no_tensor_stays_on_the_meta_device(tmp_path):
    model, _ = native.load(decoder(tmp_path).folder)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
