"""A decoder that has learned something keeps its ranks and decisions in int8, under a chat template."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForSequenceClassification

import ranker
from tests.references.producers import CHATML, decoder
from tests.references.tokenizers import tokenizer_for


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_int8_of_a_trained_decoder_passes_its_gate(tmp_path):
    tokenizer = tokenizer_for("qwen", CHATML)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.05}
    config = decoder(len(tokenizer) + 8, Qwen2Config, pad_token_id=tokenizer.pad_token_id, **sizes)
    Qwen2ForSequenceClassification(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    ranker.train(
        "decoder-bradley-terry",
        model=str(tmp_path / "base"),
        output_dir=str(tmp_path / "run"),
        training={"num_train_epochs": 2, "learning_rate": 2e-3},
        export={"precisions": []},
    )
    report = ranker.export_onnx(tmp_path / "run" / "checkpoint", tmp_path / "m.onnx", precision="int8")
    assert report.tau_b > 0.98
    assert report.flips < 0.02
    assert report.spread > 1
    assert ranker.load(tmp_path / "m.onnx").info.precision == "int8"
