"""Every route as its clients call it, against the model's own scores."""

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import asdict, fields

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import ranker
from ranker.extras import install_command
from ranker.scoring.buckets import length_bucket
from ranker.scoring.protocol import ScorerInfo
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits, check_host
from ranker.serving.server import Server
from tests.conftest import ROOT
from tests.support.scorers import info_of

ANSWERS = ["a saw", "b hammer", "pear"]


@pytest.fixture(scope="module")
def loaded(model):
    return ranker.load(model)


@pytest.fixture(scope="module")
def client(loaded):
    limits = Limits(max_client_batch_size=4, candidates=5, characters=1000, payload_limit=20_000)
    with TestClient(application(Server(loaded.scorer, "m", limits), Keys([]))) as response:
        yield response


def test_score_gives_one_result_per_item_and_errors_beside(client, loaded):
    response = client.post("/v1/score", json={"prompt": "p", "candidates": ANSWERS}).json()
    expected = loaded.rank("p", ANSWERS)
    assert response["results"][0]["scores"] == pytest.approx(expected.scores.tolist(), abs=1e-5)
    assert response["results"][0]["order"] == expected.order.tolist()
    items = [{"prompt": "p", "candidates": ANSWERS}, {"prompt": [{"role": "user", "content": "q"}], "candidates": []}]
    both = client.post("/v1/rank", json={"items": items}).json()["results"]
    assert [len(result["scores"]) for result in both] == [3, 0]


def test_compare(client, loaded):
    response = client.post("/v1/compare", json={"prompt": "p", "a": ANSWERS[0], "b": ANSWERS[1]}).json()
    assert response["logit"] == pytest.approx(loaded.compare("p", *ANSWERS[:2]), abs=1e-5)
    assert response["probability"] == pytest.approx(1 / (1 + math.exp(-response["logit"])), abs=1e-6)


@pytest.mark.parametrize("route", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_in_the_shapes_of_cohere_and_tei(client, loaded, route):
    expected = loaded.rank("p", ANSWERS)
    body = {"model": "x", "query": "p", "documents": [ANSWERS[0], {"text": ANSWERS[1]}, ANSWERS[2]], "top_n": 2}
    response = client.post(route, json=body | {"return_documents": True}).json()["results"]
    assert [row["index"] for row in response] == expected.order[:2].tolist()
    assert response[0]["document"]["text"] == ANSWERS[expected.order[0]]
    tei = client.post(route, json={"query": "p", "texts": ANSWERS, "raw_scores": False, "return_text": True}).json()
    assert [row["index"] for row in tei] == expected.order.tolist()
    both = client.post(route, json={"query": "p", "texts": ANSWERS, "documents": ANSWERS})
    assert (both.status_code, "got both, remove one" in both.text) == (422, True)
    assert tei[0]["score"] == pytest.approx(float(1 / (1 + np.exp(-expected.scores.max()))), abs=1e-5)


def test_openrlhf_may_ask_for_nothing(client):
    assert client.post("/get_reward", json={"query": []}).json() == {"rewards": [], "scores": [], "extra_logs": {}}


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"prompt": "p"}, 422, "expected prompt and candidates"),
        (
            {"prompt": "p", "candidates": ["a", "b"], "items": [{"prompt": "p", "candidates": ["c"]}]},
            422,
            "got both, remove one",
        ),
        ({"candidates": ["a"], "items": [{"prompt": "p", "candidates": ["c"]}]}, 422, "got both, remove one"),
        ({"text_1": "q", "queries": "q", "text_2": ["a"]}, 422, "got text_1 and queries, remove one"),
        ({"prompt": 3, "candidates": []}, 422, "prompt"),
        ({"items": [{"prompt": "p", "candidates": ["a"]}, {"prompt": "p"}]}, 422, '["body","items",1,"candidates"]'),
        ({"items": [{"prompt": "p", "candidates": []}] * 5}, 422, "at most 4 items, got 5"),
        ({"prompt": "p", "candidates": ["a"] * 6}, 422, "at most 5 candidates, got 6"),
        ({"prompt": "p", "candidates": ["a" * 1001]}, 422, "at most 1000 characters, got 1001"),
        ({"prompt": "p", "candidates": ["a" * 21_000]}, 413, "at most 20000 bytes"),
    ],
)
def test_what_is_wrong_is_said_by_its_place(client, body, status, named):
    response = client.post("/v1/score", json=body)
    assert response.status_code == status
    assert named in response.text


@pytest.mark.parametrize("text", ["\ud800", "\x00", "\u202e", " " * 900, "[SEP]", "﷽" * 900, "𝔘" * 400])
def test_odd_texts_are_scored(client, text):
    body = json.dumps({"prompt": text, "candidates": [text, "b"]})
    response = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 422)
    if response.status_code == 200:
        assert all(math.isfinite(score) for score in response.json()["results"][0]["scores"])


def test_keys_cover_every_route_but_health(loaded):
    server = Server(loaded.scorer, "m", Limits())
    with TestClient(application(server, Keys(["secret", "other"]))) as client:
        for route in ("/v1/score", "/metrics", "/info", "/v1/models", "/none"):
            assert client.get(route).status_code == 401
            assert client.get(route, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(route, headers={"Authorization": "Bearer other"}).status_code != 401
        for route in ("/livez", "/readyz", "/", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert client.get(route).status_code == 200, "what the server is, and whether it answers"
        schema = client.get("/openapi.json").json()
        assert schema["security"] == [{"key": []}]
        assert schema["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
        assert schema["paths"]["/livez"]["get"]["security"] == []


def test_every_route_has_a_heading_and_every_body_an_example_that_is_answered(pointwise):
    client = TestClient(application(Server(ranker.load(pointwise).scorer, "m", Limits()), Keys([])))
    schema = client.get("/openapi.json").json()
    assert "security" not in schema, "there are no keys"
    headings = {tag["name"] for tag in schema["tags"]}
    answered = 0
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert set(operation["tags"]) <= headings
            if method != "post":
                continue
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            names = [
                part["$ref"].rpartition("/")[2]
                for part in [body, *body.get("oneOf", []), *body.get("anyOf", [])]
                if "$ref" in part
            ]
            for name in names:
                (example,) = schema["components"]["schemas"][name]["examples"]
                answer = client.post(path, json=example)
                assert answer.status_code == 200, (path, name, answer.text)
                answered += 1
    assert answered >= 10


def test_the_model_is_listed_as_clients_of_openai_read_it(client, loaded):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("m", "model", loaded.info.max_length)
    assert model["created"] == pytest.approx(time.time(), abs=3600)
    page = client.get("/").text
    assert "<code>m</code>" in page
    assert 'href="docs"' in page
    assert 'href="ui"' not in page, "there is no page"


def test_metrics_count_requests_by_route_and_status(client, loaded):
    client.post("/v1/score", json={"prompt": "p", "candidates": ["a", "a", "longer than that"]})
    client.post("/v1/score", json={"prompt": "p"})
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    info = loaded.info
    labels = sorted(("m", info.layout, info.precision, info.device, ranker.__version__))
    assert samples["ranker_requests_total", "/v1/score", "200"] >= 1
    assert samples["ranker_queue_items",] == 0
    assert samples["ranker_requests_in_flight",] == 1, "the scrape itself"
    assert samples["ranker_answers_total",] > samples["ranker_answers_read_total",] > 0, "a repeat is read once"
    assert samples["ranker_tokens_total",] > 0
    assert samples["ranker_padding_tokens_total",] > 0
    assert samples["ranker_batch_items_count",] == samples["ranker_batch_seconds_count",] > 0
    assert samples["ranker_queue_seconds_count",] >= samples["ranker_batch_items_count",]
    assert samples["ranker_refused_total", "invalid"] >= 1
    assert samples["ranker_refused_total", "queue_full"] == 0, "there from the start"
    assert samples["ranker_model_info", *labels] == 1
    assert samples["process_resident_memory_bytes",] > 1e6


def test_info_gives_the_model_its_limits_and_every_field_of_the_scorer(client, loaded):
    info = client.get("/info").json()
    assert info.pop("model") == "m"
    assert info.pop("limits")["max_client_batch_size"] == 4
    assert info == json.loads(json.dumps(asdict(loaded.scorer.info)))
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ModelInfo"]
    assert set(schema["required"]) == {"model", "limits", *(field.name for field in fields(ScorerInfo))}


def test_another_host_needs_a_key():
    check_host("127.0.0.1", Keys([]), False)
    check_host("0.0.0.0", Keys(["k"]), False)
    check_host("0.0.0.0", Keys([]), True)
    with pytest.raises(ranker.errors.ConfigError, match=r"--host 0\.0\.0\.0 is reachable"):
        check_host("0.0.0.0", Keys([]), False)


def test_a_slow_body_and_a_websocket_are_refused(loaded):
    app = application(Server(loaded.scorer, "m", Limits(request_timeout_s=0.05)), Keys([]))
    slow = [{"type": "http.request", "body": b"{", "more_body": True}]
    assert asyncio.run(named(app, slow))["status"] == 408
    response = asyncio.run(named(app, [{"type": "websocket.connect"}], kind="websocket"))
    assert response == {"type": "websocket.close", "code": 1008}


async def named(app, messages, kind="http"):
    """What the application says first to a client that sends these messages and then nothing."""
    sent, waiting = [], iter(messages)

    async def receive():
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(30)
        return message

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "method": "POST", "path": "/v1/score", "query_string": b""}
    await app(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send)
    return sent[0]


@pytest.mark.parametrize(("leaves", "statuses"), [(True, (200, 499)), (False, (503, 503))])
def test_a_client_that_left_or_waited_too_long_is_not_worked_for(loaded, leaves, statuses):
    gate, calls = threading.Event(), []

    class Held:
        info = info_of(calibration=loaded.scorer.info.calibration)

        def score(self, groups, *, preserve_order=False):
            calls.append([group.prompt for group in groups])
            gate.wait(10)
            return loaded.scorer.score(groups)

    app = application(Server(Held(), "m", Limits(request_timeout_s=0.6)), Keys([]))

    async def ask(prompt, then):
        body = json.dumps({"prompt": prompt, "candidates": ANSWERS}).encode()
        return (await named(app, [{"type": "http.request", "body": body}, *then]))["status"]

    async def both():
        first = asyncio.create_task(ask("first", []))
        async with asyncio.timeout(10):
            while not calls:
                await asyncio.sleep(0.01)
        response = await ask("second", [{"type": "http.disconnect"}] if leaves else [])
        gate.set()
        return await first, response

    assert asyncio.run(both()) == statuses
    assert calls == [["first"]]


WRONG = {
    "/rerank": b'{"query": "q", "documents": [%s]}',
    "/v1/score": b'{"items": [%s]}',
    "/predict": b'{"inputs": [%s]}',
    "/score": b'{"text_1": "a", "text_2": [%s]}',
    "/classify": b'{"input": [%s]}',
    "/pooling": b'{"messages": [%s]}',
    "/get_reward": b'{"query": [%s]}',
    "/v1/score/evaluation": b'{"messages": [%s]}',
}


@pytest.mark.parametrize("route", WRONG)
def test_a_body_of_wrong_elements_is_refused_beside_the_loop_with_few_errors(loaded, route, monkeypatch):
    """Two megabytes of wrong elements held the event loop for 13 s and were answered with 139 MB."""
    from ranker.serving import bodies

    threads = []
    check = bodies._check
    monkeypatch.setattr(bodies, "_check", lambda *args: threads.append(threading.current_thread().name) or check(*args))
    body = WRONG[route] % b",".join([b"1"] * 900_000)
    with TestClient(application(Server(loaded.scorer, "m", Limits()), Keys([]))) as client:
        answer = client.post(route, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert 1 <= len(answer.json()["detail"]) <= 10
    assert len(answer.content) < 2000
    assert threads
    assert all(name.startswith("ranker-body") for name in threads), "a thread beside the event loop's"


def test_lists_have_a_longest_length(loaded):
    limits = Limits(payload_limit=2 << 20)
    many = b'{"query": "", "documents": [' + b'"a word",' * 70_000 + b'""]}'
    with TestClient(application(Server(loaded.scorer, "m", limits), Keys([]))) as roomy:
        answer = roomy.post("/rerank", content=many, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "at most 65536 items" in answer.text


@pytest.mark.parametrize(
    "body", [b'"documents": ["a \\ud83d", "b"]', b'"texts": ["a \\ud83d", "b"], "return_text": true']
)
def test_a_lone_surrogate_comes_back_as_it_was_sent(client, body):
    answer = client.post("/rerank", content=b'{"query": "q", %s}' % body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert b"a \\ud83d" in answer.content


@pytest.mark.parametrize("missing", ["fastapi", "prometheus_client", "uvicorn"])
def test_a_missing_package_of_the_server_names_the_extra(missing):
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom ranker.errors import MissingExtraError\n"
        "try:\n    import ranker.serving.serve\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"'{missing}' is not installed; run: {install_command('serve')}\n", done.stderr


def test_a_lone_surrogate_is_scored_and_not_refused(client):
    body = b'{"prompt": "cut within an emoji \\ud83d", "candidates": ["a", "b"]}'
    answer = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["scores"]) == 2


def test_a_server_that_warms_up_is_ready_when_it_has_scored_every_length(loaded):
    lengths, release, scorer = [], threading.Event(), loaded.scorer

    class Slow:
        info = scorer.info
        token_counts = scorer.token_counts

        def score(self, groups, **options):
            release.wait()
            lengths.append(max(scorer.token_counts(groups[0])))
            return scorer.score(groups, **options)

    server = Server(Slow(), "slow", Limits())
    server.warm_up()
    with TestClient(application(server, Keys([]))) as client:
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
        assert (answer.status_code, "warming up" in answer.text) == (503, True)
        release.set()
        assert server._warm.wait(60)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/score", json={"prompt": "p", "candidates": ["a", "b"]}).status_code == 200
    buckets = {length_bucket(length) for length in range(1, scorer.info.max_length + 1)}
    assert len(lengths) >= len(buckets) - 1
    assert lengths[0] >= scorer.info.max_length - 8


def test_a_route_that_is_not_there_is_answered_with_where_the_routes_are(client):
    answer = client.get("/v1/rnk")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "no route '/v1/rnk'; /docs and /openapi.json list the routes"


def test_every_route_has_a_title_in_words(client):
    document = client.get("/openapi.json").json()
    titles = [operation["summary"] for path in document["paths"].values() for operation in path.values()]
    assert all(" " in title for title in titles)


def test_another_method_is_answered_with_the_one_to_use(client):
    answer = client.get("/v1/rank")
    assert answer.status_code == 405
    assert answer.json()["detail"] == "'/v1/rank' takes POST, not GET"
