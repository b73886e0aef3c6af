"""Other trainers' checkpoints score as an independent forward says, and survive conversion to plain transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ranker
from ranker.checkpoints import native
from ranker.checkpoints.convert import convert
from ranker.errors import CheckpointError
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone

DEFAULTS = ("ranker", "id2label", "label2id", "num_labels", "problem_type")


def foreign(tmp_path, family, *, labels=1, pad="[PAD]", head=None, declare=True):
    """A checkpoint as transformers, TRL or OpenRLHF leave it: no section of ours in it."""
    folder = save_backbone(tmp_path / "foreign", family, pad=pad)
    torch.manual_seed(1)
    pad_id = 3 if pad == "[SEP]" else 0
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, pad_token_id=pad_id)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    if family == "llama":
        tensors["score.weight"] = tensors["score.weight"] * 20
    if head:
        tensors[f"{head}.weight"] = tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if declare or k not in DEFAULTS}
    if head:
        config["architectures"] = ["RewardModel"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def decoder_scores(model, tensors, folder, end=(3,)):
    """Head times last state of ``[BOS] prompt blank-line answer EOS``, written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS)]
    head = next(t for name, t in tensors.items() if name.split(".")[0] in ("score", "value_head", "rm_head"))
    out = []
    for answer in texts[1:]:
        ids = torch.tensor([[2, *texts[0], *answer, *end]])
        with torch.no_grad():
            out.append((model.model(ids).last_hidden_state[0, -1] @ head.T).tolist())
    return np.array(out)


@pytest.mark.parametrize("head", [None, "value_head"])
@pytest.mark.parametrize("declare", [True, False])
@pytest.mark.parametrize("pad", ["[PAD]", "[SEP]"])
def test_a_decoder_with_or_without_num_labels_and_whatever_its_head_is_called(head, declare, pad, tmp_path):
    """OpenRLHF#1039 and #428: two outputs by default, and a head that would be newly initialised.

    Where padding is the end-of-text token, OpenRLHF scores that token and transformers the one before it.
    """
    folder, model = foreign(tmp_path, "llama", head=head, declare=declare, pad=pad)
    before_the_end = pad == "[SEP]" and head is None
    end = () if before_the_end else (3,)
    expected = decoder_scores(model, load_file(folder / "model.safetensors"), folder, end)[:, 0]
    assert np.ptp(expected) > 1e-2
    if before_the_end:
        with pytest.warns(UserWarning, match="transformers scores the token before it"):
            np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-5)
    else:
        np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-5)

    notes = convert(folder, tmp_path / "converted")
    assert ["padding" in note for note in notes] == [True] * (pad == "[SEP]")
    np.testing.assert_allclose(ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS)), expected, atol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted").eval()
    assert plain.score.out_features == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS)]
    rows = [[2, *texts[0], *answer, 3] for answer in texts[1:]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [plain.config.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        np.testing.assert_allclose(plain(ids, attention_mask=mask).logits[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta-v2", "modernbert"])
def test_an_encoder_scores_like_the_library(family, tmp_path):
    folder, model = foreign(tmp_path, family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([PROMPT] * len(ANSWERS), list(ANSWERS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_two_classes_are_the_log_odds_of_the_second(family, tmp_path):
    folder, model = foreign(tmp_path, family, labels=2)
    scores = ranker.load(folder).score(PROMPT, list(ANSWERS))
    if family == "llama":
        logits = decoder_scores(model, load_file(folder / "model.safetensors"), folder)
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batch = tokenizer([PROMPT] * len(ANSWERS), list(ANSWERS), padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model.eval()(**batch).logits.numpy()
    np.testing.assert_allclose(scores, logits[:, 1] - logits[:, 0], atol=1e-5)


def test_a_plain_t5_is_steamshp(tmp_path):
    from ranker.models import seq2seq
    from ranker.models.scorer import TorchScorer
    from ranker.records import Group

    folder = save_backbone(tmp_path / "t5", "t5")
    expected = TorchScorer(*seq2seq.from_backbone(str(folder))).score([Group(PROMPT, ANSWERS)])[0].scores
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-6)
    convert(folder, tmp_path / "converted")
    np.testing.assert_allclose(ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS)), expected, atol=1e-6)


def test_armorm_as_it_is_released(tmp_path):
    """Its own configuration and names; the score against the formula with numbers from the file."""
    from transformers import AutoModel

    folder = save_backbone(tmp_path / "armorm", "llama")
    backbone = AutoModel.from_pretrained(folder).eval()
    torch.manual_seed(2)
    added = {
        "regression_layer.weight": torch.randn(5, 32), "reward_transform_matrix": torch.randn(5, 5),
        "gating.layers.0.weight": torch.randn(16, 32), "gating.layers.0.bias": torch.randn(16),
        "gating.layers.1.weight": torch.randn(5, 16), "gating.layers.1.bias": torch.randn(5),
        "gating.logit_scale": torch.tensor([1.5]),
    }  # fmt: skip
    tensors = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()} | added
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForRewardModelWithGating"], "num_objectives": 5, "gating_temperature": 2.0}
    (folder / "config.json").write_text(json.dumps(config))

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, *answers = (tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS))
    expected = []
    for answer in answers:
        with torch.no_grad():
            states = backbone(torch.tensor([[2, *prompt, *answer, 3]])).last_hidden_state[0]
        aspects = added["regression_layer.weight"] @ states[-1]
        at = states[len(prompt)]  # this tokenizer writes nothing between prompt and answer: the prompt's last token
        hidden = torch.relu(added["gating.layers.0.weight"] @ at + added["gating.layers.0.bias"])
        logits = added["gating.layers.1.weight"] @ hidden + added["gating.layers.1.bias"]
        gate = (logits / 2.0).softmax(0) * 1.5
        expected.append((gate * (aspects @ added["reward_transform_matrix"])).sum().item())
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, rtol=1e-4, atol=1e-4)
    convert(folder, tmp_path / "converted")
    scores = ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", [False, True], ids=["PairRM-hf", "PairRM"])
def test_pairrm_in_both_its_layouts(own, tmp_path):
    """Against LLM-Blender's forward written out: three segments, one head on [source; candidate], left minus right."""
    from transformers import DebertaV2Config, DebertaV2Model

    folder = save_backbone(tmp_path / "pairrm", "deberta-v2")
    torch.manual_seed(3)
    hidden, rows = 128, 604
    settings = {
        "vocab_size": rows, "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "max_relative_positions": -1, "type_vocab_size": 0,
        "layer_norm_eps": 1e-7, "initializer_range": 0.2, "pad_token_id": 0,
    }  # fmt: skip
    backbone = DebertaV2Model(DebertaV2Config(**settings)).eval()
    head = {
        "head_layer.1.weight": torch.randn(hidden, 2 * hidden), "head_layer.1.bias": torch.randn(hidden),
        "head_layer.4.weight": torch.randn(3, hidden), "head_layer.4.bias": torch.randn(3),
    }  # fmt: skip
    tensors = {f"pretrained_model.{name}": tensor for name, tensor in backbone.state_dict().items()} | head
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    tokenizer.save_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(m) for m in ("<|source|>", "<|candidate1|>", "<|candidate2|>")]
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
    config = {
        "model_type": "deberta-v2",
        "architectures": ["DebertaV2PairRM"],
        "n_tasks": 3,
        "drop_out": 0.05,
    } | settings
    if own:
        config = {
            "ranker_type": "pairranker",
            "model_type": "deberta",
            "model_name": "microsoft/deberta-v3-large",
            "n_tasks": 3,
        }
    else:
        config |= dict(zip(names, ids, strict=True))
    (folder / "config.json").write_text(json.dumps(config))

    def logit(left, right):
        texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, left, right)]
        row, at = [], []
        for marker, text in zip(ids, texts, strict=True):
            at.append(len(row) + 1)
            row += [2, marker, *text, 3]
        with torch.no_grad():
            states = backbone(torch.tensor([row])).last_hidden_state[0, at]
            read = [torch.cat([states[0], states[k]]) for k in (1, 2)]
            inner = [torch.tanh(head["head_layer.1.weight"] @ r + head["head_layer.1.bias"]) for r in read]
            sides = [head["head_layer.4.weight"] @ i + head["head_layer.4.bias"] for i in inner]
        return (sides[0] - sides[1]).mean().item()

    a, b = ANSWERS[:2]
    expected = (logit(a, b) - logit(b, a)) / 2
    assert abs(expected) > 0.1
    np.testing.assert_allclose(ranker.load(folder).compare(PROMPT, a, b), expected, rtol=1e-4)
    convert(folder, tmp_path / "converted")
    np.testing.assert_allclose(ranker.load(tmp_path / "converted").compare(PROMPT, a, b), expected, rtol=1e-4)


@pytest.mark.network
def test_the_golden_rows_of_pairrm_hf(tmp_path):
    """fp32, order [A, B]: 1.9003021717 and -1.2547134161 (model card of llm-blender/PairRM-hf)."""
    from huggingface_hub import snapshot_download

    from ranker.models.scorer import TorchScorer
    from ranker.records import Group
    from ranker.text import batching

    scorer = TorchScorer(*native.load(Path(snapshot_download("llm-blender/PairRM-hf"))))
    rows = [
        ("hello!", "hi!", "f**k off!", 1.9003021717),
        ("I love you!", "I hate you!", "I love you, too!", -1.2547134161),
    ]
    for prompt, left, right, expected in rows:
        packed = scorer.pipeline.pack(scorer.pipeline.tokenize([Group(prompt, (left, right))])[0])
        first = scorer._forward(batching.collate(scorer.model.layout, batching.units([packed])[:1]))
        assert abs((first[0, 0] - first[0, 1]).mean() - expected) < 1e-3


def test_what_has_no_head_or_is_not_known_is_refused_with_the_repair(tmp_path):
    folder, _ = foreign(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no head was found.*candidates: none.*ranker inspect"):
        ranker.load(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no head was found"):
        ranker.load(folder)


def test_shards_are_read_and_a_missing_one_is_named(tmp_path):
    folder, model = foreign(tmp_path, "llama")
    expected = ranker.load(folder).score(PROMPT, list(ANSWERS))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    index = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    np.testing.assert_array_equal(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"shard model-00002-of-00002\.safetensors is missing, and 10 tensors with it"
    ):
        ranker.load(folder)


def test_an_occupied_target_is_left_alone(tmp_path):
    folder, _ = foreign(tmp_path, "llama")
    with pytest.raises(CheckpointError, match="expected a new folder"):
        convert(folder, folder)
