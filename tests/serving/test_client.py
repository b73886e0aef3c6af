"""The client against the server's own process, and against servers that are busy, gone or foreign."""

import asyncio
import http.server
import json
import threading

import httpx
import numpy as np
import pytest

import ranker
from ranker.errors import ConfigError, ScoringError, ServerError
from tests.serving.test_serve import start


@pytest.fixture(scope="module")
def address(model):
    process, address = start(model, env={"RANKER_API_KEYS": "secret"})
    yield address
    process.terminate()
    process.wait()


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with the next status of a list, then with scores."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status, headers = self.server.script.pop(0) if self.server.script else (200, {})
        self.server.asked += 1
        scored = {"results": [{"scores": [2.0, 1.0], "error": None}]}
        body = json.dumps(scored if status == 200 else {"detail": "the queue is full"}).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def scripted():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.script, server.asked = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROMPTS = ["Say hi", [{"role": "user", "content": "What is 2 + 2?"}]]
CANDIDATES = [["Hi!", "No.", "Hello there"], ["It is 4.", [{"role": "assistant", "content": "It is 5."}]]]


def test_a_server_scores_as_the_loaded_model(address, model):
    loaded = ranker.load(model)
    with ranker.Client(address, key="secret") as client:
        client.wait_until_ready(30)
        for ours, theirs in zip(
            client.score_batch(PROMPTS, CANDIDATES), loaded.score_batch(PROMPTS, CANDIDATES), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert (
            client.rank(PROMPTS[0], CANDIDATES[0]).order.tolist()
            == loaded.rank(PROMPTS[0], CANDIDATES[0]).order.tolist()
        )
        for probability in (False, True):
            ours = client.compare("Say hi", "Hi!", "No.", probability=probability)
            assert ours == pytest.approx(loaded.compare("Say hi", "Hi!", "No.", probability=probability), abs=1e-5)
        assert client.info()["layout"] == loaded.info.layout
        many = client.score_batch(["p"] * 150, [[f"a {i}", "b"] for i in range(150)])
        assert len(many) == 150, "more than one request holds"


def test_the_same_calls_are_awaited(address, model):
    async def ask():
        async with ranker.AsyncClient(address, key="secret") as client:
            return await asyncio.gather(
                client.score_batch(PROMPTS, CANDIDATES),
                client.rank(PROMPTS[0], CANDIDATES[0]),
                client.compare("Say hi", "Hi!", "No."),
                client.info(),
            )

    scores, ranking, logit, info = asyncio.run(ask())
    loaded = ranker.load(model)
    np.testing.assert_allclose(scores[0], loaded.score(PROMPTS[0], CANDIDATES[0]), atol=1e-5)
    assert ranking.order.tolist() == loaded.rank(PROMPTS[0], CANDIDATES[0]).order.tolist()
    assert logit == pytest.approx(loaded.compare("Say hi", "Hi!", "No."), abs=1e-5)
    assert info["scores_are_relative"] == loaded.info.scores_are_relative


def test_a_refusal_says_why_and_is_not_repeated(address):
    with ranker.Client(address) as client, pytest.raises(ServerError, match="401: expected Authorization") as caught:
        client.score("p", ["a", "b"])
    assert caught.value.status == 401
    with ranker.Client(address, key="secret") as client:
        with pytest.raises(ServerError, match=r"422: body\.items\.0: expected at most 256 candidates, got 300"):
            client.score("p", ["a"] * 300)
        with pytest.raises(ConfigError, match="a list of candidates per prompt"):
            client.score_batch(["p"], [])


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(status, scripted, monkeypatch):
    server, address = scripted
    server.script = [(status, {"retry-after": "3"}), (status, {})]
    waits = []
    monkeypatch.setattr("ranker.client.time.sleep", waits.append)
    with ranker.Client(address) as client:
        assert client.score("p", ["a", "b"]).tolist() == [2.0, 1.0]
    assert server.asked == 3
    assert waits[0] == 3.0
    assert 0 < waits[1] <= 0.5


def test_a_wait_beyond_the_time_that_is_left_is_an_error(scripted):
    server, address = scripted
    server.script = [(429, {"retry-after": "100"})]
    with ranker.Client(address, timeout=5) as client, pytest.raises(ServerError, match="429: the queue is full"):
        client.score("p", ["a", "b"])
    assert server.asked == 1


def test_an_awaited_call_waits_too(scripted):
    server, address = scripted
    server.script = [(503, {"retry-after": "0"})]

    async def ask():
        async with ranker.AsyncClient(address) as client:
            return await client.score("p", ["a", "b"])

    assert asyncio.run(ask()).tolist() == [2.0, 1.0]
    assert server.asked == 2


def test_no_server_is_said_within_the_time(free_port):
    address = f"http://127.0.0.1:{free_port}"
    with ranker.Client(address, timeout=0.6) as client:
        with pytest.raises(ServerError, match="no answer within 0.6 s .*is the server running") as caught:
            client.score("p", ["a", "b"])
        assert caught.value.status == 0
        with pytest.raises(ServerError, match=r"not ready after 0\.1 s"):
            client.wait_until_ready(0.1)
    for url, more in (("127.0.0.1:8000", {}), (address, {"timeout": 0})):
        with pytest.raises(ConfigError):
            ranker.Client(url, **more)


def test_requests_are_small_enough_for_a_server(address):
    long = [["long text " * 500] * 8] * 64
    with ranker.Client(address, key="secret") as client:
        bodies = client._bodies(["p"] * 64, long)
        assert len(bodies) > 1
        assert all(len(json.dumps(body)) < 2 << 20 for body in bodies)
        assert sum(len(body["items"]) for body in bodies) == 64
        many = client._bodies(["p"] * 64, [["a"] * 100] * 64)
        assert all(sum(len(item["candidates"]) ** 2 for item in body["items"]) <= 32_768 for body in many)
        assert client._bodies([], []) == []


def test_an_answer_that_is_no_json_is_an_error_of_the_client(scripted, monkeypatch):
    server, address = scripted
    with ranker.Client(address) as client:
        monkeypatch.setattr(client._http, "request", lambda *_, **__: httpx.Response(200, text="<html>hello"))
        with pytest.raises(ServerError, match="is it the address of ranker serve"):
            client.score("p", ["a"])
        with pytest.raises(ConfigError, match="expected a text or messages, got None"):
            client.score("p", [None])
    with pytest.raises(ConfigError, match="is no address"):
        ranker.Client("http://127.0.0.1:port")


def test_an_error_ends_the_other_requests_of_an_awaited_call(scripted):
    server, address = scripted
    server.script = [(422, {})]

    async def ask():
        async with ranker.AsyncClient(address) as client:
            with pytest.raises(ServerError, match="422"):
                await client.score_batch(["p"] * 2000, [["a", "b"]] * 2000)
            await asyncio.sleep(0.1)
            return [
                task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.cancelling()
            ]

    assert asyncio.run(ask()) == []


def test_a_prompt_that_cannot_be_scored_is_named(monkeypatch, scripted):
    server, address = scripted
    body = {"results": [{"scores": [1.0], "error": None}, {"scores": None, "error": "too strange"}]}
    with ranker.Client(address) as client:
        monkeypatch.setattr(client, "_send", lambda *_: body)
        with pytest.raises(ScoringError, match="prompt 1: too strange"):
            client.score_batch(["p", "q"], [["a"], ["b"]])
        first, second = client.score_batch(["p", "q"], [["a"], ["b"]], return_exceptions=True)
        assert first.tolist() == [1.0]
        assert isinstance(second, ScoringError)


@pytest.fixture
def free_port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    port = server.server_port
    server.server_close()
    return port


@pytest.mark.parametrize("candidates", ["abc", 3, {"a": "b"}])
def test_candidates_that_are_no_list_are_refused_before_anything_is_sent(candidates, free_port):
    with (
        ranker.Client(f"http://127.0.0.1:{free_port}") as client,
        pytest.raises(ConfigError, match="expected a list of candidates, got"),
    ):
        client.rank("Say hi", candidates)
