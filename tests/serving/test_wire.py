"""Requests as the clients of other servers send them, and what they read in the answers."""

import json
import math

import pytest
from fastapi.testclient import TestClient

import ranker
from ranker.records import Message
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server
from tests.support.scorers import info_of


def sigmoid(value):
    return 1 / (1 + math.exp(-float(value)))


def test_tei_predict_reads_texts_pairs_and_lists_of_them(client, loaded):
    alone, pair = loaded.score("", ["a saw"])[0], loaded.score("p", ["pear"])[0]
    label = {"label": "LABEL_0"}
    assert client.post("/predict", json={"inputs": "a saw"}).json() == [
        label | {"score": pytest.approx(sigmoid(alone))}
    ]
    response = client.post("/predict", json={"inputs": ["p", "pear"], "raw_scores": True}).json()
    assert response == [label | {"score": pytest.approx(float(pair), abs=1e-5)}]
    lone = client.post("/predict", json={"inputs": ["a saw"]}).json()
    assert lone == [label | {"score": pytest.approx(sigmoid(alone))}]
    both = client.post("/predict", json={"inputs": [["a saw"], ["p", "pear"]], "raw_scores": True}).json()
    assert [scored[0]["score"] for scored in both] == pytest.approx([float(alone), float(pair)], abs=1e-5)
    mixed = client.post("/predict", json={"inputs": [["a saw"], "a saw"]}).json()
    assert mixed[0] == mixed[1] == [label | {"score": pytest.approx(sigmoid(alone))}]
    assert client.post("/predict", json={"inputs": ["a", ["b"]]}).status_code == 422
    wrong = client.post("/predict", json={"inputs": [["a"], ["a", "b", "c"]]})
    assert wrong.status_code == 422
    assert wrong.json()["detail"][0]["loc"] == ["body", "inputs", 1]


def test_vllm_score_classify_and_pooling(client, loaded):
    expected = [float(loaded.score("p", [text])[0]) for text in ("a saw", "pear")]
    for first, second in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"), ("queries", "items")):
        response = client.post("/score", json={"model": "m", first: "p", second: ["a saw", "pear"]}).json()
        assert [row["score"] for row in response["data"]] == pytest.approx([sigmoid(x) for x in expected], abs=1e-5)
        assert [row["index"] for row in response["data"]] == [0, 1]
    raw = client.post("/score", json={"text_1": ["p", "p"], "text_2": ["a saw", "pear"], "use_activation": False})
    assert [row["score"] for row in raw.json()["data"]] == pytest.approx(expected, abs=1e-5)
    assert client.post("/score", json={"text_1": ["p"] * 3, "text_2": ["a"] * 2}).status_code == 422
    alone = float(loaded.score("", ["a saw"])[0])
    (row,) = client.post("/classify", json={"input": "a saw"}).json()["data"]
    assert (row["num_classes"], row["probs"]) == (1, [pytest.approx(sigmoid(alone), abs=1e-5)])
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "pear"}]
    (row,) = client.post("/pooling", json={"model": "m", "messages": turns}).json()["data"]
    chat = float(loaded.score((Message("user", "p"),), ["pear"])[0])
    assert row["data"] == [pytest.approx(chat, abs=1e-5)]
    assert "end with the assistant's" in client.post("/pooling", json={"messages": turns[:1]}).text
    assert client.post("/pooling", json={}).status_code == 422


def test_recorded_request_of_openrlhf(client, loaded):
    """As ``remote_rm_fn`` of OpenRLHF 0.11 sends it: decoded with the template's tokens."""
    body = {
        "query": ["<|im_start|>user\nWhich are tools?<|im_end|>\n<|im_start|>assistant\na saw<|im_end|>\n"],
        "prompts": ["<|im_start|>user\nWhich are tools?<|im_end|>\n<|im_start|>assistant\n"],
        "labels": [None],
    }
    response = client.post("/get_reward", json=body).json()
    assert set(response) == {"rewards", "scores", "extra_logs"}
    expected = float(loaded.score(body["prompts"][0], ["a saw"])[0])
    assert response["rewards"] == [pytest.approx(expected, abs=1e-5)]
    assert response["scores"] == [pytest.approx(sigmoid(expected), abs=1e-5)]


def test_vllm_rerank_has_its_defaults(client, loaded):
    ranking = loaded.rank("p", ["a saw", "pear"])
    for body in ({"top_n": 0}, {"top_n": None}, {}):
        response = client.post("/v1/rerank", json={"query": "p", "documents": ["a saw", "pear"], **body}).json()[
            "results"
        ]
        assert [row["index"] for row in response] == ranking.order.tolist()
        assert [row["document"]["text"] for row in response] == [["a saw", "pear"][i] for i in ranking.order]
    raw = client.post("/v1/rerank", json={"query": "p", "documents": ["a saw"], "use_activation": False}).json()
    assert raw["results"][0]["relevance_score"] == pytest.approx(float(loaded.score("p", ["a saw"])[0]), abs=1e-5)


def test_a_model_that_compares_refuses_a_lone_answer_and_reads_equal_prompts_together(model):
    compares = ranker.load(model)
    assert compares.scorer.info.scores_are_relative
    with TestClient(application(Server(compares.scorer, "m", Limits()), Keys([]))) as client:
        lone = {"query": ["p: a"], "prompts": ["p: "]}
        refused = client.post("/get_reward", json=lone)
        assert refused.status_code == 422
        assert "serve a pointwise model" in refused.text
        for route, body in (
            ("/predict", {"inputs": "a"}),
            ("/classify", {"input": "a"}),
            ("/pooling", {"input": ["a", "b"]}),
            ("/v1/score/evaluation", {"messages": ["a"]}),
            ("/score", {"text_1": ["p", "q"], "text_2": ["a", "b"]}),
        ):
            assert client.post(route, json=body).status_code == 422, route
        several = {"query": ["p: a", "q: c", "p: b", "q: d"], "prompts": ["p: ", "q: ", "p: ", "q: "]}
        rewards = client.post("/get_reward", json=several).json()["rewards"]
        p, q = compares.score("p: ", ["a", "b"]), compares.score("q: ", ["c", "d"])
        assert rewards == pytest.approx([float(x) for x in (p[0], q[0], p[1], q[1])], abs=1e-5)
        scores = client.post("/score", json={"text_1": "p: ", "text_2": ["a", "b"], "use_activation": False}).json()
        assert [row["score"] for row in scores["data"]] == pytest.approx(p.tolist(), abs=1e-5)


def test_no_items_no_results(client):
    assert client.post("/v1/score", json={"items": []}).json()["results"] == []


def test_recorded_request_of_llama_factory(client, loaded):
    """As ``get_rewards_from_server`` of LLaMA-Factory 0.9 sends it."""
    body = {"model": "model", "messages": ["user: p assistant: a saw", "user: p assistant: pear"]}
    response = client.post("/v1/score/evaluation", json=body).json()
    assert response["object"] == "score.evaluation"
    assert response["scores"] == pytest.approx([float(loaded.score("", [t])[0]) for t in body["messages"]], abs=1e-5)


def test_items_that_fail_are_named_or_reported(model):
    class Failing:
        info = info_of(calibration=ranker.load(model).calibration)

        def score(self, groups, *, preserve_order=False):
            from ranker.scoring.protocol import failed

            good = iter(ranker.load(model).scorer.score([g for g in groups if g.prompt != "bad"]))
            return [failed(g, "the model gave NaN") if g.prompt == "bad" else next(good) for g in groups]

    items = [{"prompt": "p", "candidates": ["a"]}, {"prompt": "bad", "candidates": ["a", "b"]}]
    with TestClient(application(Server(Failing(), "m", Limits()), Keys([]))) as client:
        refused = client.post("/v1/score", json={"items": items})
        assert refused.status_code == 422
        assert refused.json()["detail"] == [
            {"type": "value_error", "loc": ["body", "items", 1], "msg": "the model gave NaN"}
        ]
        partial = client.post("/v1/score", json={"items": items, "partial": True}).json()["results"]
        assert partial[0]["error"] is None
        assert partial[1] == {
            "margin": None,
            "scores": None,
            "ranks": None,
            "order": None,
            "truncated": None,
            "prompt_truncated": None,
            "special_text": None,
            "error": "the model gave NaN",
        }
        assert client.post("/rerank", json={"query": "bad", "documents": ["a"]}).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": NaN, "candidates": ["a"]}',
        b'{"prompt": "\\ud800", "candidates": [1]}',
        b'{"items": ' + b"[" * 100_000,
        b'{"prompt": "p", "candidates": ["a"], "partial": NaN}',
        b"\xff\xfe",
        b"",
        b"null",
        b"1e999999",
    ],
)
def test_what_is_no_request_is_refused_without_echo(client, body):
    response = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    json.loads(response.content)
    assert b"input" not in response.content or b"body" in response.content
