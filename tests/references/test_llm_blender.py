"""Pair rankers score as llm-blender's own code scores them; ``make test-all`` fetches it (``make peers``)."""

import importlib
import sys
import types

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import processors
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

import ranker
from tests.conftest import ROOT
from tests.references.test_checkpoints import llm_blender_pair_ranker

PACKAGE = ROOT / "build" / "peers" / "llm_blender"
SHAPE = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
BACKBONES = {
    "bert": lambda size: BertModel(BertConfig(**SHAPE, vocab_size=size, max_position_embeddings=80)),
    "roberta": lambda size: RobertaModel(
        RobertaConfig(**SHAPE, vocab_size=size, max_position_embeddings=80, type_vocab_size=1, layer_norm_eps=1e-5)
    ),
}

pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs make peers"),
]


@pytest.fixture
def modules(monkeypatch):
    """Its reranker and collator, without the package's own imports, which need transformers 4."""
    for name, path in (("llm_blender", PACKAGE), ("llm_blender.pair_ranker", PACKAGE / "pair_ranker")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    return [importlib.import_module(f"llm_blender.pair_ranker.{name}") for name in ("ranker", "collator")]


@pytest.mark.parametrize("family", BACKBONES)
def test_a_comparison_is_that_of_its_reranker(family, modules, tmp_path, monkeypatch):
    reranker, collator = modules
    llm_blender_pair_ranker(tmp_path, family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.model_max_length = 80
    monkeypatch.setattr(
        type(tokenizer), "batch_encode_plus", lambda self, texts, **how: self(texts, **how), raising=False
    )
    ends = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    collate = collator.CrossCompareCollator(24, tokenizer, 24)
    tensors = load_file(tmp_path / "model.safetensors")
    backbone = BACKBONES[family](tensors["pretrained_model.embeddings.word_embeddings.weight"].shape[0])
    backbone.config.out_hidden_state_size = 64
    settings = {"num_pos": 1, "num_neg": 1, "sub_sampling_mode": "all_pair", "sub_sampling_ratio": 0.4}
    settings |= {"n_" + "tasks": 1, "loss_type": "BCE", "drop_out": 0.0, "inference_mode": "full"}
    model = reranker.CrossCompareReranker(backbone, types.SimpleNamespace(**settings), tokenizer).eval()
    assert model.load_state_dict(tensors, strict=False).unexpected_keys == []
    texts = ("Name the capital", ["Paris it is", "No idea"])
    batch = collate([{"source": texts[0], "candidates": texts[1], "scores": None}])
    source = (batch["source_ids"], batch["source_attention_mask"])
    answers = [(batch["candidate_ids"][:, i], batch["candidate_attention_mask"][:, i]) for i in (0, 1)]
    with torch.no_grad():
        one, two = (model._forward(*source, *answers[i], *answers[1 - i])["logits"].item() for i in (0, 1))
    assert ranker.load(tmp_path).compare(texts[0], *texts[1]) == pytest.approx((one - two) / 2, abs=1e-5)
