"""Other trainers' checkpoints score as an independent forward says, and survive conversion to plain transformers."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ranker
from ranker.checkpoints import native
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


def decoder_scores(model, tensors, folder):
    """Head times last state of ``[BOS] prompt blank-line answer EOS``, written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS)]
    head = next(t for name, t in tensors.items() if name.split(".")[0] in ("score", "value_head", "rm_head"))
    out = []
    for answer in texts[1:]:
        ids = torch.tensor([[2, *texts[0], *answer, 3]])
        with torch.no_grad():
            out.append((model.model(ids).last_hidden_state[0, -1] @ head.T).tolist())
    return np.array(out)


@pytest.mark.parametrize("head", [None, "value_head"])
@pytest.mark.parametrize("declare", [True, False])
@pytest.mark.parametrize("pad", ["[PAD]", "[SEP]"])
def test_a_decoder_with_or_without_num_labels_and_whatever_its_head_is_called(head, declare, pad, tmp_path):
    """OpenRLHF#1039 and #428: two outputs by default, and a head that would be newly initialised."""
    folder, model = foreign(tmp_path, "llama", head=head, declare=declare, pad=pad)
    expected = decoder_scores(model, load_file(folder / "model.safetensors"), folder)[:, 0]
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-5)

    native.convert(folder, tmp_path / "converted")
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
    native.convert(folder, tmp_path / "converted")
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
    native.convert(folder, tmp_path / "converted")
    scores = ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_what_has_no_head_or_is_not_known_is_refused_with_the_repair(tmp_path):
    folder, _ = foreign(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no head was found.*ranker inspect"):
        ranker.load(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'language model without a head' is not read as a reward model"):
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
    with pytest.raises(CheckpointError, match=r"expected model-00002-of-00002\.safetensors, found none"):
        ranker.load(folder)


def test_an_occupied_target_is_left_alone(tmp_path):
    folder, _ = foreign(tmp_path, "llama")
    with pytest.raises(CheckpointError, match="expected a new folder"):
        native.convert(folder, folder)
