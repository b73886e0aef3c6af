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
from tests.checkpoints.layouts import configured, decoder_scores, foreign, pairrm
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone


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
            np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, rtol=1e-5, atol=1e-5)

    notes = convert(folder, tmp_path / "converted")
    assert any("padding" in note for note in notes) == (pad == "[SEP]")
    np.testing.assert_allclose(
        ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS)), expected, rtol=1e-5, atol=1e-5
    )
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted").eval()
    assert plain.score.out_features == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS)]
    rows = [[2, *texts[0], *answer, 3] for answer in texts[1:]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [plain.config.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        np.testing.assert_allclose(plain(ids, attention_mask=mask).logits[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta-v2", "modernbert"])
def test_an_encoder_scores_like_the_library(family, tmp_path):
    folder, model = foreign(tmp_path, family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([PROMPT] * len(ANSWERS), list(ANSWERS), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, rtol=1e-5, atol=1e-5)


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
    np.testing.assert_allclose(scores, logits[:, 1] - logits[:, 0], rtol=1e-5, atol=1e-5)


def test_a_plain_t5_is_steamshp(tmp_path):
    from ranker.models import steamshp
    from ranker.models.torch_scorer import TorchScorer
    from ranker.records import Group

    folder = save_backbone(tmp_path / "t5", "t5")
    expected = TorchScorer(*steamshp.from_backbone(str(folder))).score([Group(PROMPT, ANSWERS)])[0].scores
    np.testing.assert_allclose(ranker.load(folder).score(PROMPT, list(ANSWERS)), expected, atol=1e-6)
    convert(folder, tmp_path / "converted")
    np.testing.assert_allclose(ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS)), expected, atol=1e-6)


@pytest.mark.parametrize("original", [False, True], ids=["PairRM-hf", "PairRM"])
def test_pairrm_in_both_its_layouts(original, tmp_path):
    checkpoint = pairrm(tmp_path, original)
    np.testing.assert_allclose(
        ranker.load(checkpoint.folder).score(PROMPT, list(ANSWERS)), checkpoint.scores, rtol=1e-4, atol=1e-4
    )
    convert(checkpoint.folder, tmp_path / "converted")
    scores = ranker.load(tmp_path / "converted").score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spelling", ["maxlength", "max_length"])
def test_pair_ranker_is_a_pickle_and_spells_its_lengths_in_two_ways(spelling, tmp_path):
    checkpoint = pairrm(tmp_path, original=True)
    lengths = {f"source_{spelling}": 128, f"candidate_{spelling}": 96}
    configured(checkpoint.folder, **lengths)
    torch.save(load_file(checkpoint.folder / checkpoint.file), checkpoint.folder / "pytorch_model.bin")
    (checkpoint.folder / checkpoint.file).unlink()
    with pytest.raises(CheckpointError, match=r"weights are a pickle.*--allow-pickle"):
        ranker.load(checkpoint.folder)
    loaded = ranker.load(checkpoint.folder, allow_pickle=True)
    np.testing.assert_allclose(loaded.score(PROMPT, list(ANSWERS)), checkpoint.scores, rtol=1e-4, atol=1e-4)
    assert loaded.scorer.model.layout.max_length == 128 + 2 * 96


@pytest.mark.network
def test_the_golden_rows_of_pairrm_hf(tmp_path):
    """fp32, order [A, B]: 1.9003021717 and -1.2547134161 (model card of llm-blender/PairRM-hf)."""
    from huggingface_hub import snapshot_download

    from ranker.models.torch_scorer import TorchScorer
    from ranker.records import Group
    from ranker.scoring import batching

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
    with pytest.raises(CheckpointError, match="no head was found.*still has the head.*ranker inspect"):
        ranker.load(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="language model without a head.*If it is a reranker"):
        ranker.load(folder)
    save_file(tensors | {"value.out.weight": torch.zeros(1, 32)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no head was found.*candidates: value.out.weight"):
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
