"""Texts that the caller has rendered are tokenised as the servers do that take them."""

import math

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ranker
from ranker.errors import ConfigError
from ranker.integrations.openrlhf import response, reward_function
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server
from tests.references.producers import ROWS, cross_encoder, openrlhf, trl_text

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def chatml(tmp_path_factory):
    """OpenRLHF's folder, and rendered texts."""
    produced = openrlhf(tmp_path_factory.mktemp("rendered"))
    tokenizer = AutoTokenizer.from_pretrained(produced.folder)
    texts = [tokenizer.apply_chat_template(list(row), tokenize=False) for row in ROWS[:8]]
    return produced, texts


def serve_rm(folder, texts):
    """``RewardModelProxy.get_reward`` of OpenRLHF 0.11: no special tokens are added, the last token is scored."""
    from tests.references.producers import RewardModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = RewardModel.from_pretrained(folder).eval()
    scores = []
    for text in texts:
        batch = tokenizer([text], return_tensors="pt", add_special_tokens=False, padding=True, truncation=True)
        with torch.no_grad():
            scores += model(batch["input_ids"], batch["attention_mask"]).tolist()
    return scores


def client_of(folder):
    server = Server(ranker.load(folder).scorer, "m", Limits())
    return TestClient(application(server, Keys([])))


def test_get_reward_and_the_reward_function_give_what_openrlhf_s_own_server_gives(chatml):
    produced, texts = chatml
    expected = serve_rm(produced.folder, texts)
    with client_of(produced.folder) as client:
        prompts = [text.split("<|im_end|>")[0] for text in texts]
        rewards = client.post("/get_reward", json={"query": texts, "prompts": prompts}).json()["rewards"]
        whole = client.post("/v1/score/evaluation", json={"messages": texts}).json()["scores"]
    np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5)
    function = reward_function(produced.folder)
    np.testing.assert_allclose(function(texts, texts)["rewards"].numpy(), expected, rtol=0, atol=1e-5)


def test_rendered_in_python_and_on_the_command_line_reads_a_text_as_it_is(chatml, tmp_path):
    import json

    produced, texts = chatml
    expected = serve_rm(produced.folder, texts)
    loaded = ranker.load(produced.folder)
    np.testing.assert_allclose(loaded.score("", texts, rendered=True), expected, rtol=0, atol=1e-5)
    halves = [(text[:9], text[9:]) for text in texts]
    split = loaded.score_batch([a for a, _ in halves], [[b] for _, b in halves], rendered=True)
    np.testing.assert_allclose(np.concatenate(split), expected, rtol=0, atol=1e-5)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    ranker.score_file(produced.folder, rows, tmp_path / "out.jsonl", rendered=True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([line["scores"][0] for line in lines], expected, rtol=0, atol=1e-5)


@pytest.mark.full
def test_vllm_and_tei_let_the_tokenizer_add_its_own_tokens(tmp_path):
    produced = trl_text(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(produced.folder)
    model = AutoModelForSequenceClassification.from_pretrained(produced.folder).eval()
    text = "Some prompt and an answer<|eos|>"
    with torch.no_grad():
        expected = model(**tokenizer(text, return_tensors="pt")).logits.item()
    with client_of(produced.folder) as client:
        pooled = client.post("/pooling", json={"input": text}).json()["data"][0]["data"][0]
        classified = client.post("/classify", json={"input": [text]}).json()["data"][0]["probs"][0]
        predicted = client.post("/predict", json={"inputs": text, "raw_scores": True}).json()[0]["score"]
    assert pooled == pytest.approx(expected, abs=1e-5)
    assert predicted == pytest.approx(expected, abs=1e-5)
    assert classified == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-5)


def test_an_encoder_reads_a_prompt_and_an_answer_and_no_rendered_text(tmp_path):
    produced = cross_encoder(tmp_path)
    loaded = ranker.load(produced.folder)
    with pytest.raises(ConfigError, match="give prompt and answer apart"):
        loaded.score("", ["<|im_start|>user"], rendered=True)
    with client_of(produced.folder) as client:
        both = {"query": ["Say hi: Hi!", "<s>Say hi: Hi!"], "prompts": ["Say hi: ", "Say hi: "]}
        one, other = client.post("/get_reward", json=both).json()["rewards"]
        refused = client.post("/get_reward", json={"query": ["Else: Hi!"], "prompts": ["Say hi: "]})
    assert one == pytest.approx(other, abs=1e-6)
    assert one == pytest.approx(float(loaded.score("Say hi: ", ["Hi!"])[0]), abs=1e-5)
    assert refused.status_code == 422
    assert "expected the query to begin with its prompt" in refused.text


def test_a_query_without_its_prompt_is_refused():
    with pytest.raises(ValueError, match="expected the query to begin with its prompt 'Say hi: ', got 'Else: Hi!'"):
        response("Else: Hi!", "Say hi: ")
