"""Requests of other clients: a field is honoured, or refused by its name, or named as not read."""

import json
import re

import pytest

JSON = {"content-type": "application/json"}
LONG = "word " * 400
EPISODE = [
    {"role": "assistant", "content": "Let me look."},
    {"role": "tool", "content": "blue"},
    {"role": "assistant", "content": "pear"},
]


def refusal(response):
    """Status and the first problem's field."""
    problem = response.json()["detail"][0]
    return response.status_code, problem["loc"][1:], problem["msg"]


def test_a_text_that_would_be_cut_is_refused_where_the_client_asks_for_that(client):
    for path, body in (
        ("/rerank", {"query": "p", "texts": ["a", LONG]}),
        ("/rerank", {"query": LONG, "texts": ["a"]}),
        ("/predict", {"inputs": LONG}),
        ("/score", {"text_1": "p", "text_2": LONG}),
        ("/classify", {"input": LONG}),
    ):
        status, where, message = refusal(client.post(path, json=body | {"truncate": False}))
        assert (status, where) == (413, ["truncate"])
        assert "longer than the model's" in message
        for value in (True, None):
            assert client.post(path, json=body | {"truncate": value}).status_code == 200
    body = {"text_1": ["p", "q", "p"], "text_2": ["a", "b", LONG], "truncate": False}
    assert "the text or pair 2 of text_2 is longer" in refusal(client.post("/score", json=body))[2]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("truncate_prompt_tokens", 10, "expected -1 or at least"),
        ("truncation_side", "left", "expected right"),
        ("truncation_direction", "Left", "expected right"),
        ("max_chunks_per_doc", 3, "not read in chunks"),
        ("rank_fields", ["title"], "expected text"),
        ("max_tokens_per_doc", 2, r"documents\[1\] has 4 tokens, more than 2"),
    ],
)
def test_another_way_of_cutting_is_refused_by_its_field(field, value, message, client):
    body = {"query": "p", "documents": ["a", "a saw b hammer"], field: value}
    status, where, text = refusal(client.post("/rerank", json=body))
    assert (status, where) == (422, [field])
    assert re.search(message, text)


@pytest.mark.parametrize(
    "fields",
    [
        {"truncate_prompt_tokens": -1},
        {"truncate_prompt_tokens": 100_000},
        {"truncation_side": "right"},
        {"truncation_direction": "Right"},
        {"max_tokens_per_doc": 4096},
        {"max_tokens_per_doc": 100},
        {"rank_fields": ["text"]},
        {"max_chunks_per_doc": None, "return_documents": None, "raw_scores": None, "top_n": None},
        {"use_activation": None},
    ],
)
def test_a_way_of_cutting_that_is_the_models_and_nulls_change_nothing(fields, client):
    body = {"query": "p", "documents": ["a", "pear"]}
    expected = client.post("/rerank", json=body).json()["results"]
    assert client.post("/rerank", json=body | fields).json()["results"] == expected


def test_what_was_cut_is_said_in_headers_and_in_the_own_routes_fields(client):
    response = client.post("/rerank", json={"query": LONG, "texts": ["a", "b"]})
    assert response.headers["x-ranker-prompts-truncated"] == "1"
    assert "x-ranker-truncated" not in response.headers
    response = client.post("/rerank", json={"query": "p", "texts": ["a", LONG]})
    assert response.headers["x-ranker-truncated"] == "1"
    (result,) = client.post("/v1/score", json={"prompt": LONG, "candidates": ["a"]}).json()["results"]
    assert result["prompt_truncated"] is True
    assert client.post("/v1/compare", json={"prompt": LONG, "a": "a", "b": "b"}).json()["prompt_truncated"] is True


def test_fields_that_are_not_read_are_named_in_a_header(client):
    body = {"query": "p", "documents": [{"text": "a", "title": "T"}], "model": "m", "user": "x", "stream": None}
    response = client.post("/rerank", json=body)
    assert response.headers["x-ranker-ignored-fields"] == "user, documents[].title"
    assert "x-ranker-ignored-fields" not in client.post("/rerank", json={"query": "p", "documents": ["a"]}).headers
    evil = client.post("/rerank", json={"query": "p", "documents": ["a"], "x\r\nset-cookie: a": 1, "é": 2, "ok": 3})
    assert evil.headers["x-ranker-ignored-fields"] == "ok"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/score", {"prompt": "p", "candidates": ["a"], "sytem": "be kind"}, ["sytem"]),
        ("/v1/score", {"items": [{"prompt": "p", "candidates": ["a"], "system": "x"}]}, ["items", 0, "system"]),
        ("/v1/rank", {"promt": "p", "candidates": ["a"]}, ["promt"]),
        ("/v1/compare", {"prompt": "p", "a": "a", "b": "b", "c": "c"}, ["c"]),
    ],
)
def test_an_unknown_field_of_an_own_route_is_refused(path, body, field, client):
    status, where, message = refusal(client.post(path, json=body))
    assert (status, where, message) == (422, field, "unknown field; leave it out, or correct its name")


def test_a_body_of_vllm_on_the_own_route_is_answered_as_vllm_does(client):
    body = {"model": "m", "text_1": "p", "text_2": ["a", "pear"]}
    answered, theirs = client.post("/v1/score", json=body).json(), client.post("/score", json=body).json()
    assert answered["data"] == theirs["data"]
    assert answered["object"] == "list"
    assert client.post("/v1/score", json={"prompt": "p", "candidates": ["a"], "documents": None}).json()["results"]


def test_rewards_without_queries_are_no_success(client):
    for body, got in (({}, "none"), ({"queries": ["a"]}, "queries")):
        status, where, message = refusal(client.post("/get_reward", json=body))
        assert (status, where) == (422, ["query"])
        assert message.endswith(f"got the fields {got}")
    assert client.post("/get_reward", json={"query": []}).json()["rewards"] == []


def test_documents_come_back_with_all_their_fields(client):
    document = {"text": "a", "id": 7, "meta": {"url": "x"}}
    (result,) = client.post("/rerank", json={"query": "p", "documents": [document]}).json()["results"]
    assert result["document"] == document


def test_half_an_emoji_is_scored_and_the_connection_lives_on(client):
    for _ in range(2):
        response = client.post("/rerank", content=b'{"query": "p", "documents": ["a \\ud83d", "b"]}', headers=JSON)
        assert response.status_code == 200
        assert json.loads(response.content)["results"][0]["document"]["text"] in ("a \ud83d", "b")


def test_an_answer_of_several_turns_is_scored_as_a_whole(client, loaded):
    (result,) = client.post("/v1/score", json={"prompt": "p", "candidates": [EPISODE, "pear"]}).json()["results"]
    assert result["scores"] == pytest.approx(loaded.score("p", [EPISODE, "pear"]).tolist(), abs=1e-5)
    conversation = [{"role": "user", "content": "p"}, *EPISODE]
    (pooled,) = client.post("/pooling", json={"messages": conversation}).json()["data"]
    alone = loaded.score([{"role": "user", "content": "p"}], [EPISODE])
    assert pooled["data"] == pytest.approx(alone.tolist(), abs=1e-5)
    wrong = client.post("/v1/score", json={"prompt": "p", "candidates": [[{"role": "user", "content": "x"}]]})
    assert refusal(wrong)[1] == ["items", 0, "candidates", 0]


@pytest.mark.parametrize(
    "body",
    [
        b"[1",
        b'"x"',
        b"3",
        b"null",
        b"",
        b"\xff",
        b"[" * 5000,
        b'{"query": 3}',
        b'{"query": "p", "documents": {"a": 1}}',
    ],
    ids=range(9),
)
@pytest.mark.parametrize(
    "path",
    [
        "/rerank",
        "/v1/score",
        "/v1/rank",
        "/v1/compare",
        "/score",
        "/classify",
        "/pooling",
        "/predict",
        "/get_reward",
        "/v1/score/evaluation",
    ],
)
def test_a_bad_body_is_refused_with_the_place(path, body, client):
    response = client.post(path, content=body, headers=JSON)
    assert response.status_code == 422
    for problem in response.json()["detail"]:
        assert problem["loc"][0] == "body"
        assert "pydantic" not in problem["msg"]
        assert "instance of" not in problem["msg"]


def test_a_body_that_is_not_called_json_is_refused_by_its_header(client):
    body = b'{"query": "p", "documents": ["a"]}'
    for headers, got in (({}, "none"), ({"content-type": "application/x-www-form-urlencoded"}, "application/x-www")):
        (problem,) = client.post("/rerank", content=body, headers=headers).json()["detail"]
        assert problem["loc"] == ["header", "content-type"]
        assert problem["msg"].startswith(f"expected application/json, got {got}")
    assert (
        client.post("/rerank", content=body, headers={"content-type": "application/json; charset=utf-8"}).status_code
        == 200
    )
