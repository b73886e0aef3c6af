"""What bites in this field, each as a test: the thread that reported it is named where there is one.

Covered beside their code: heads and num_labels (tests/models/test_reward.py), missing, empty and NaN tensors
(tests/checkpoints/test_native.py), adapters (test_adapters.py), shards (test_launch.py), position bias and swapped labels
(tests/evaluation/test_run.py), structure in user text (tests/text/test_tokenizer.py).
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ranker.checkpoints import native
from ranker.errors import CheckpointError
from ranker.models import pointwise
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group, Message
from ranker.training.lora import heads
from tests.models.test_reward import ANSWERS, PROMPT, TEMPLATE, save_backbone, trained
from tests.support.scorers import input_ids_of

EOS, BOS = 3, 2
DOUBLE = "{{ '[CLS]' }}" + TEMPLATE
"""A template that writes the beginning-of-text token itself."""


@pytest.mark.parametrize("pad", ["[PAD]", "[SEP]", None])
def test_chosen_and_rejected_differ_when_padding_is_the_end_of_text(pad, tmp_path):
    """trl#2758, transformers#35352: the pooled token was the prompt's, and the loss stuck at log 2."""
    _, scorer = trained(tmp_path, "llama", pad=pad)
    (result,) = scorer.score([Group("Say [SEP] once", ("yes", "no, and a longer one"))])
    assert abs(result.scores[0] - result.scores[1]) > 1e-4


def test_every_answer_ends_in_one_end_of_text_even_when_it_is_cut_or_writes_one(tmp_path):
    """OpenRLHF#300 and #627: texts cut at the length limit were scored at an arbitrary token."""
    _, scorer = trained(tmp_path, "llama")
    for answer in ("short", "word " * 400, "ends itself [SEP]", ""):
        (ids,) = input_ids_of(scorer, Group(PROMPT, (answer,)))
        assert ids[-1] == EOS
        assert ids.count(EOS) == 1
        assert len(ids) <= 128


def test_the_beginning_of_text_is_written_once(tmp_path):
    """reward-bench scored chat templates with two."""
    folder = save_backbone(tmp_path / "backbone", "llama", template=DOUBLE)
    model, tokenizer = pointwise.from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=16)
    (ids,) = input_ids_of(TorchScorer(model, tokenizer), Group(PROMPT, ("[CLS] yes",)))
    assert ids[0] == BOS
    assert ids.count(BOS) == 1


def test_what_is_scored_is_never_truncated_away(tmp_path):
    """sentence-transformers#3787: the template's end was cut with the text."""
    _, scorer = trained(tmp_path, "qwen2", template=TEMPLATE)
    conversation = tuple(Message(role, "many words " * 60) for role in ("user", "assistant", "user"))
    group = Group(conversation, ("the answer itself",))
    (result,) = scorer.score([group])
    (ids,) = input_ids_of(scorer, group)
    (short,) = input_ids_of(scorer, Group(conversation[:0], ("the answer itself",)))
    tail = scorer.pipeline.tokenizer.encode(["the answer itself"])[0].tolist()
    tail += short[short.index(tail[-1]) + 1 :]
    assert ids[-len(tail) :] == tail
    assert result.prompt_truncated
    assert not result.truncated[0]


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "modernbert", "llama", "gpt2"])
def test_rewards_keep_their_resolution_in_bf16(family, tmp_path):
    """OpenRLHF#1334: bf16 rewards of 1 and 1.0078 are neighbours; the head is computed in fp32."""
    _, scorer = trained(tmp_path, family)
    scorer.model.to(torch.bfloat16)
    for name in heads(scorer.model):
        scorer.model.get_submodule(name).float()
    (result,) = scorer.score([Group(PROMPT, tuple(f"answer {i}" for i in range(40)))])
    assert result.scores.dtype == np.float32
    as_bf16 = torch.from_numpy(result.scores).bfloat16().float().numpy()
    assert np.abs(result.scores - as_bf16).max() > 0


def test_roberta_counts_positions_from_its_padding_id(tmp_path):
    folder, scorer = trained(tmp_path, "roberta")
    long = "word " * 400
    (result,) = scorer.score([Group(long, ("yes",))])
    assert np.isfinite(result.scores).all()
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    (ids,) = input_ids_of(scorer, Group(long, ("yes",)))
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor([ids])).logits.item(), result.scores[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["value_head", "reward_head", "v_head"])
def test_a_head_under_another_name_is_refused_by_name(name, tmp_path):
    """OpenRLHF#428, #542: the library initialises a new head in silence and accuracy falls to chance."""
    folder, _ = trained(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{name}.weight"] = tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"tensor 'score\.weight' is missing"):
        native.load(folder)


def test_num_labels_is_two_for_no_one(tmp_path):
    """OpenRLHF#1039."""
    folder, _ = trained(tmp_path, "llama")
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "reward"}
    assert AutoModelForSequenceClassification.from_pretrained(folder).score.out_features == 1


def test_one_answer_and_many_score_alike_whatever_the_padding_side_of_the_tokenizer(tmp_path):
    """trl#2778: policies pad left, reward models right; the mask decides here."""
    folder, scorer = trained(tmp_path, "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    alone = [native_score(folder, answer) for answer in ANSWERS]
    np.testing.assert_allclose(scorer.score([Group(PROMPT, ANSWERS)])[0].scores, alone, rtol=1e-5, atol=1e-5)


def native_score(folder, answer):
    return TorchScorer(*native.load(folder)).score([Group(PROMPT, (answer,))])[0].scores[0]
