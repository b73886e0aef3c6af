"""Tiny models and tokenizers, built in memory: no network, no downloads."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Commands are started hundreds of times; without stored bytecode each start compiles all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel

from ranker.checkpoints import native
from ranker.data.formats import parse_preference
from ranker.data.sample import build
from ranker.export.write import export
from ranker.layouts import LAYOUTS as LAYOUTS_BY_NAME
from ranker.layouts.pointwise import Pointwise
from ranker.models import backbones
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.pointwise import attention_options, prepare, reward_class
from ranker.models.readouts import READOUTS
from ranker.text.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP = range(4)
ALGORITHMS = ("wordpiece", "bpe", "unigram", "unigram-nfkc")
FAMILIES = ("bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert")
LAYOUTS = ("shared_prompt", "set_encoder", "pointwise", "ordered_pair")

torch.set_num_threads(1)


@cache
def corpus() -> tuple[str, ...]:
    """Texts of the sample, so that tiny tokenizers know its words."""
    rows = list(build.rows("validation"))[:80]
    return tuple(text for row in rows for text in (row["prompt"], *row["candidates"]))


def wordpiece_json(size: int = 600) -> str:
    """A WordPiece of the sample's characters and commonest words; trained ones differ from process to process."""
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = Counter(w for t in corpus() for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(t)))
    letters = sorted(set("".join(words)))
    pieces = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters)]
    pieces += [w for w, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])) if len(w) > 1]
    tok = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces[:size])}, unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizer, splitter
    tok.add_special_tokens(SPECIALS)
    return tok.to_str()


@cache
def tokenizer_json(algorithm: str = "wordpiece") -> str:
    """A ``tokenizer.json`` trained on the sample; ids 0 to 4 are pad, unknown, cls, sep, mask."""
    if algorithm == "wordpiece":
        return wordpiece_json()
    if algorithm == "bpe":
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        tok = Tokenizer(models.Unigram())
        if algorithm.endswith("nfkc"):
            tok.normalizer = normalizers.NFKC()
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=600, special_tokens=SPECIALS, unk_token="[UNK]", show_progress=False
        )
    tok.train_from_iterator(corpus(), trainer)
    return tok.to_str()


def unigram_that_knows_sep() -> str:
    """A Unigram vocabulary whose own pieces include the special ones, as DeBERTa-v3's does."""
    text = json.loads(tokenizer_json("unigram-nfkc"))
    for piece in text["model"]["vocab"]:
        if piece[0] in SPECIALS:
            piece[1] = -0.1
    return json.dumps(text)


def backbone_config(family: str, vocab: int = 700) -> dict:
    """A two-layer configuration of an encoder family."""
    common = {
        "model_type": family,
        "vocab_size": vocab,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 160,
        "pad_token_id": PAD,
        "initializer_range": 0.2,
    }
    extra = {
        "bert": {"type_vocab_size": 2},
        "roberta": {"type_vocab_size": 1},
        "xlm-roberta": {"type_vocab_size": 1},
        "electra": {"type_vocab_size": 2, "embedding_size": 16},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "mpnet": {"pad_token_id": 1, "relative_attention_num_buckets": 32},
        "deberta-v2": {
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "max_relative_positions": -1,
        },
        "modernbert": {
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
            "bos_token_id": CLS,
            "eos_token_id": SEP,
            "cls_token_id": CLS,
            "sep_token_id": SEP,
        },
    }[family]
    config = backbones.set_dropout(PairwiseConfig(backbone=common | extra).backbone_config(), 0.0)
    return config.to_dict()


def tiny(
    layout: str = "set_encoder", *, family: str = "bert", max_length: int = 128, num_labels: int = 1
) -> tuple[PreTrainedModel, TextTokenizer]:
    """A random two-layer ranker or reward model with large enough weights that scores differ visibly."""
    torch.manual_seed(0)
    lengths = {"max_length": max_length, "prompt_reserve": 16, "pad_id": PAD}
    offset = {"roberta": 1, "xlm-roberta": 1, "mpnet": 2}.get(family, 0)
    if layout == "pointwise":
        model = _tiny_pointwise(family, num_labels, Pointwise(**lengths, position_offset=offset, **PAIR))
        return model, TextTokenizer(tokenizer_json())
    cls = LAYOUTS_BY_NAME[layout]
    markers = tuple(range(690, 690 + READOUTS[cls].markers))
    text = cls(**lengths, position_offset=offset, cls_id=CLS, sep_id=SEP, **({"markers": markers} if markers else {}))
    inner = backbone_config(family)
    model = PairwiseModel(PairwiseConfig(backbone=inner, text=text.model_dump(), num_labels=num_labels)).eval()
    if family == "modernbert":  # its random [CLS] states hardly differ
        model.head.out.weight.data.mul_(10)
    return model, TextTokenizer(tokenizer_json(), text.marker_ids)


PAIR = {"prefix": (CLS,), "between": (SEP,), "suffix": (SEP,)}


def _tiny_pointwise(family: str, num_labels: int, text: Pointwise) -> PreTrainedModel:
    config = PairwiseConfig(backbone=backbone_config(family)).backbone_config()
    labels = ("reward",) if num_labels == 1 else tuple(f"aspect{i}" for i in range(num_labels))
    config.num_labels = num_labels
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.ranker = {"text": text.model_dump(), "head": "scalar", "pooling": "first_token", "aspects": []}
    cls = reward_class(config)
    model = prepare(cls._from_config(config, **attention_options(config))).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("classifier", "head")) and parameter.dim() == 2:
            parameter.data.normal_(0.0, 0.5)
    return model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported ranker that compares, beside its folder ``checkpoint``."""
    return _exported(tmp_path_factory.mktemp("model"), "set_encoder")


@pytest.fixture(scope="session")
def pointwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported ranker whose scores mean something alone."""
    return _exported(tmp_path_factory.mktemp("pointwise"), "pointwise")


def _exported(folder: Path, layout: str) -> Path:
    native.save(*tiny(layout), folder / "checkpoint")
    rows = [parse_preference(row, row["id"]) for _, row in zip(range(4), build.rows("validation"), strict=False)]
    export(folder / "checkpoint", {"fp32": folder / "model.onnx"}, rows=rows)
    return folder / "model.onnx"


def save_tiny_backbone(folder: Path, positions: int = 160) -> Path:
    """A folder with a random BERT and its tokenizer, as a hub checkpoint would be."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    inner = backbone_config("bert") | {"max_position_embeddings": positions}
    AutoModel.from_config(PairwiseConfig(backbone=inner).backbone_config()).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json()),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone of 160 positions."""
    return save_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def long_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone of 512 positions, for recipes as they are."""
    return save_tiny_backbone(tmp_path_factory.mktemp("long"), 512)
