"""Every recipe learns: held-out accuracy on the sample significantly above every baseline.

Encoders and ArmoRM start from the packaged MiniLM, decoders from random weights, the encoder-decoder from two MiniLMs
whose cross-attention and words are new. With RECORD=1 in the environment the figures are written to docs/learned.json,
from which docs/schemes.md is made.
"""

import json
import os
from dataclasses import asdict
from itertools import islice

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, EncoderDecoderModel, LlamaConfig

from ranker.config import load_config, recipes
from ranker.data.load import load_preferences
from ranker.evaluation.evaluate import evaluate
from ranker.extras import offline_backbone
from ranker.training.train import train
from tests.conftest import ROOT, wordpiece_json
from tests.models.test_reward import save_tokenizer

DATA = ROOT / "data"
FIGURES = ROOT / "docs" / "learned.json"
HELD_OUT = 32
"""Validation rows that the run itself sees; the rest is held out."""


def small_decoder(folder):
    """A random Llama of three layers whose tokenizer knows the sample's words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2100,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=256,
        max_position_embeddings=256,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, "llama", wordpiece_json(2000))
    return folder


def joined_encoders(folder):
    """MiniLM as an encoder and its first two layers as a decoder, whose cross-attention starts as its self-attention."""
    torch.manual_seed(0)
    encoder = AutoModel.from_pretrained(offline_backbone())
    decoder = AutoModelForCausalLM.from_pretrained(
        offline_backbone(), is_decoder=True, add_cross_attention=True, num_hidden_layers=2
    )
    for layer in decoder.bert.encoder.layer:
        layer.crossattention.self.load_state_dict(layer.attention.self.state_dict())
        layer.crossattention.output.load_state_dict(layer.attention.output.state_dict())
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    model.config.update({"decoder_start_token_id": tokenizer.cls_token_id, "pad_token_id": tokenizer.pad_token_id})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = [
    "model.max_length=192",
    "model.prompt_reserve=64",
    "training.max_tokens_per_forward=4096",
    "training.tokens_per_step=4096",
    "training.head_lr_multiplier=1",
    "training.activation_checkpointing=false",
    "training.candidates_per_prompt=[3, 4]",
]
FROM_SCRATCH = {
    "decoder-bradley-terry": ["training.learning_rate=2e-3", "training.num_train_epochs=4"],
    "decoder-log-exp": ["training.learning_rate=2e-3", "training.num_train_epochs=4"],
    "decoder-classify": [
        "training.learning_rate=1e-3",
        "training.num_train_epochs=6",
        "training.loss.accept_threshold=0.15",
    ],
    "decoder-regress": ["training.learning_rate=7e-4", "training.num_train_epochs=6"],
    "decoder-token-pairwise": ["training.learning_rate=5e-4", "training.num_train_epochs=3"],
}
"""What each scheme needs to learn from random weights."""


def settings(recipe, tmp_path):
    """What the test changes in a recipe: a backbone that is at hand, and sizes for two cores."""
    if recipe in FROM_SCRATCH:
        return [f"model.name_or_path={small_decoder(tmp_path / 'backbone')}", *SMALL, *FROM_SCRATCH[recipe]]
    if recipe == "steamshp":
        return [
            f"model.name_or_path={joined_encoders(tmp_path / 'backbone')}",
            "model.max_length=256",
            "training.max_tokens_per_forward=2048",
            "training.tokens_per_step=2048",
            "training.activation_checkpointing=false",
            "training.learning_rate=1e-4",
            "training.num_train_epochs=2",
        ]
    if recipe == "armorm":  # as the released model does, on the backbone of a trained reward model
        config = load_config("encoder-bradley-terry", common("encoder-bradley-terry", tmp_path / "bt"))
        rows = tmp_path / "aspects.jsonl"
        with (DATA / "train.jsonl").open() as lines:
            rows.write_text("".join(islice(lines, 300)))
        return [
            f"model.name_or_path={train(config).folder}",
            "model.max_length=256",
            "model.gate.steps=300",
            "data.max_train_samples=300",
            f"data.aspects=[{rows}]",
        ]
    if recipe == "pairrm-original":  # reads one pair at a time, so it needs more of them
        return ["training.num_train_epochs=2", "training.learning_rate=1e-4", "training.loss.order_consistency=0"]
    return ["data.max_train_samples=800"]


def common(recipe, folder):
    """Settings of every run."""
    return [
        f"output_dir={folder / 'run'}",
        f"data.train=[{DATA / 'train.jsonl'}]",
        f"data.validation=[{DATA / 'validation.jsonl'}]",
        f"data.max_eval_samples={HELD_OUT}",
        "training.report_to=[]",
        "training.eval_steps=100000",
        *settings(recipe, folder),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(recipes()))
def test_held_out_accuracy_is_above_the_baselines(recipe, tmp_path):
    trained = train(load_config(recipe, common(recipe, tmp_path)))
    test = load_preferences([str(DATA / "validation.jsonl")]).preferences[HELD_OUT:]
    report = evaluate(trained.scorer, test, train=trained.train).report
    name, best = max(report.baselines.items(), key=lambda item: item[1].accuracy.high)
    assert report.accuracy.low > best.accuracy.high, report.accuracy
    if os.environ.get("RECORD"):
        figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
        shares = {"accuracy": asdict(report.accuracy), "baseline": {"name": name, **asdict(best.accuracy)}}
        figures[recipe] = {
            key: {k: round(v, 4) if isinstance(v, float) else v for k, v in share.items()}
            for key, share in shares.items()
        }
        FIGURES.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
