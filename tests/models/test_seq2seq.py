"""SteamSHP's question, read and answered as the library reads and answers it."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ranker.checkpoints import native
from ranker.errors import CheckpointError
from ranker.models import steamshp as seq2seq
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone

FORM = "POST: {prompt} \n\n RESPONSE A: {a}\n\n RESPONSE B: {b}\n\n Which response is better? RESPONSE"


@pytest.fixture(params=sorted(seq2seq.FAMILIES))
def family(request):
    return request.param


def steamshp(tmp_path, family, max_length=160):
    folder = save_backbone(tmp_path / "backbone", family)
    model, tokenizer = seq2seq.from_backbone(str(folder), max_length=max_length, prompt_reserve=16)
    model.get_output_embeddings().weight.data.mul_(20)
    native.save(model.eval(), tokenizer, tmp_path / "checkpoint")
    return tmp_path / "checkpoint", TorchScorer(model, tokenizer)


def plain_logits(folder, prompt, a, b):
    """First-step logits of plain transformers on SteamSHP's own string."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = FORM.format(prompt=prompt.replace("\n", " "), a=a.replace("\n", " "), b=b.replace("\n", " "))
    ids = tokenizer(text).input_ids
    ids = torch.tensor([ids if ids[-1] == 3 else [*ids, 3]])
    first = model.generate(ids, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    words = [tokenizer.encode(word, add_special_tokens=False)[0] for word in "AB"]
    return first.logits[0][0, words], first.logits[0][0].log_softmax(-1)[words]


def test_the_question_is_steamshp_s_to_the_id_and_the_logit_is_generate_s(tmp_path, family):
    folder, scorer = steamshp(tmp_path, family)
    a, b = ANSWERS[:2]
    prompt = PROMPT + "\nWrite one line."
    (result,) = scorer.score([Group(prompt, (a, b))])
    (za, zb), logp = plain_logits(folder, prompt, a, b)
    (ya, yb), _ = plain_logits(folder, prompt, b, a)
    expected = ((za - zb) - (ya - yb)) / 2
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(result.scores[0] - result.scores[1], expected, atol=1e-4)
    from ranker.scoring import batching

    packed = scorer.pipeline.pack(scorer.pipeline.tokenize([Group(prompt, (a, b))])[0])
    with torch.inference_mode():
        raw = scorer._forward(batching.collate(scorer.model.layout, batching.units([packed])[:1]))
    np.testing.assert_allclose(raw[0, :, 0], logp, atol=1e-4)


def test_a_lone_answer_is_scored_against_the_empty_one_in_both_orders(tmp_path, family):
    folder, scorer = steamshp(tmp_path, family)
    (result,) = scorer.score([Group(PROMPT, ANSWERS[:1])])
    (za, zb), _ = plain_logits(folder, PROMPT, ANSWERS[0], ".")
    (ya, yb), _ = plain_logits(folder, PROMPT, ".", ANSWERS[0])
    np.testing.assert_allclose(result.scores, [((za - zb) - (ya - yb)) / 2], atol=1e-4)
    assert scorer.score([Group(PROMPT, ())])[0].scores.shape == (0,)


def test_scores_are_antisymmetric_whatever_the_order(tmp_path, family):
    _, scorer = steamshp(tmp_path, family)
    (one,) = scorer.score([Group(PROMPT, ANSWERS)])
    (two,) = scorer.score([Group(PROMPT, ANSWERS[::-1])])
    np.testing.assert_allclose(one.scores, two.scores[::-1], atol=1e-4)


def test_saved_and_reloaded_it_scores_the_same(tmp_path, family):
    folder, scorer = steamshp(tmp_path, family)
    assert native.check_reload(scorer, folder, [Group(PROMPT, ANSWERS), Group("x " * 400, ("y " * 300, "z"))]) <= 1e-5
    (cut,) = scorer.score([Group("x " * 400, ("y " * 300, "z"))])
    assert cut.prompt_truncated
    assert cut.truncated.tolist() == [True, False]


def test_other_families_are_refused(tmp_path):
    folder = save_backbone(tmp_path / "bert", "bert")
    with pytest.raises(CheckpointError, match=r"expected an encoder-decoder \(t5, encoder-decoder\), got 'bert'"):
        seq2seq.from_backbone(str(folder))


def test_a_model_that_names_no_first_token_is_refused(tmp_path):
    folder = save_backbone(tmp_path / "joined", "encoder-decoder")
    config = json.loads((folder / "config.json").read_text())
    del config["decoder_start_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no decoder_start_token_id"):
        seq2seq.from_backbone(str(folder))
