"""What is refused before a request reaches a route."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from ranker.serving.batcher import OverloadedError
from ranker.serving.guard import OPEN, PAGE, RECEIVING, Guard
from ranker.serving.limits import Keys, Limits
from ranker.serving.metrics import Metrics

KEY = [(b"authorization", b"Bearer secret")]


class App:
    """Reads the body and answers with it; it records the bodies it saw."""

    def __init__(self, status=200):
        self.status = status
        self.bodies = []

    async def __call__(self, scope, receive, send):
        scope["route"] = SimpleNamespace(path="/route/{name}")
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})


class Client:
    """Sends requests through a guard.

    Args:
        full: whether the queue is full.
        keys: the keys that the server knows.
        limits: those that differ from the defaults.
    """

    def __init__(self, app=None, *, full=False, keys=(), **limits):
        self.app = app or App()
        self.metrics = Metrics()
        batcher = SimpleNamespace(refusal=lambda characters: OverloadedError(1.2) if full else None)
        server = SimpleNamespace(limits=Limits(**limits), metrics=self.metrics, batcher=batcher)
        self.guard = Guard(self.app, server=server, keys=Keys(keys))

    def send(self, *messages, path="/v1/score", method="POST", headers=()):
        """The status, the headers and the body of the answer; None where nothing is answered."""
        return asyncio.run(self.exchange(*messages, path=path, method=method, headers=headers))

    async def exchange(self, *messages, path="/v1/score", method="POST", headers=()):
        waiting = list(messages or [body(b"{}")])
        sent = []

        async def receive():
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "path": path, "method": method, "headers": list(headers)}
        await self.guard(scope, receive, send)
        if not sent:
            return None
        start, end = sent
        return start["status"], dict(start["headers"]), end["body"]

    def count(self, route, status):
        """How many requests of a route were answered with a status."""
        labels = {"route": route, "status": str(status)}
        return self.metrics.registry.get_sample_value("ranker_requests_total", labels) or 0


def body(content, more=False):
    return {"type": "http.request", "body": content, "more_body": more}


def detail(answer):
    return json.loads(answer[2])["detail"]


def test_a_request_reaches_the_application():
    client = Client()
    status, _, content = client.send(body(b"{}"))
    assert (status, content, client.app.bodies) == (200, b"answered", [b"{}"])


def test_a_body_in_parts_reaches_the_application_as_one():
    client = Client()
    client.send(body(b"{", True), body(b"}", True), body(b"", False))
    assert client.app.bodies == [b"{}"]


def test_a_request_without_a_key_is_refused():
    client = Client(keys=["secret"])
    status, headers, _ = answer = client.send()
    assert status == 401
    assert headers[b"www-authenticate"] == b"Bearer"
    assert detail(answer) == "expected Authorization: Bearer KEY; got no key"
    assert client.app.bodies == []


def test_a_wrong_key_is_refused():
    status, _, _ = answer = Client(keys=["other"]).send(headers=KEY)
    assert status == 401
    assert detail(answer).endswith("got a key that this server does not know")


@pytest.mark.parametrize("keys", [["secret"], ["other", "secret"], []])
def test_a_known_key_is_let_through(keys):
    assert Client(keys=keys).send(headers=KEY)[0] == 200


def test_the_name_of_a_header_is_read_in_any_case():
    assert Client(keys=["secret"]).send(headers=[(b"Authorization", b"bearer secret")])[0] == 200


@pytest.mark.parametrize("path", OPEN)
def test_probes_need_no_key(path):
    assert Client(keys=["secret"]).send(path=path, method="GET")[0] == 200


def test_a_browser_is_asked_for_a_password_on_the_page():
    _, headers, _ = Client(keys=["secret"]).send(path=PAGE, method="GET")
    assert headers[b"www-authenticate"] == b"Basic"


def test_a_body_beyond_the_limit_is_refused():
    client = Client(payload_limit=1024)
    answer = client.send(body(b"x" * 1025))
    assert (answer[0], detail(answer)) == (413, "expected a body of at most 1024 bytes")
    assert client.app.bodies == []


def test_a_body_at_the_limit_is_let_through():
    assert Client(payload_limit=1024).send(body(b"x" * 1024))[0] == 200


def test_a_body_is_not_read_beyond_the_limit():
    parts = [body(b"x" * 600, True) for _ in range(4)]
    assert Client(payload_limit=1024).send(*parts)[0] == 413


def test_a_body_that_does_not_end_in_time_is_refused():
    answer = Client(request_timeout_s=0.01).send(body(b"{", True))
    assert (answer[0], detail(answer)) == (408, "expected the whole body within 0.01 s")


def test_a_full_queue_refuses_work_with_the_time_to_wait():
    status, headers, _ = answer = Client(full=True).send()
    assert (status, headers[b"retry-after"]) == (429, b"2")
    assert detail(answer) == "the queue is full; try again in 2 s"


@pytest.mark.parametrize(("path", "method"), [("/livez", "GET"), ("/metrics", "GET"), (f"{PAGE}/queue/join", "POST")])
def test_a_full_queue_refuses_no_other_request(path, method):
    assert Client(full=True).send(path=path, method=method)[0] == 200


def test_a_client_that_has_gone_is_no_failure_of_the_server():
    client = Client()
    client.send(body(b"{", True), {"type": "http.disconnect"})
    assert client.app.bodies == []
    assert client.count("none", 499) == 1


def together(client, *paths):
    """The answers to requests that wait for each other."""

    async def requests():
        arrived = []
        both = asyncio.Event()

        async def slow(scope, receive, send):
            arrived.append(scope["path"])
            await both.wait()
            await App()(scope, receive, send)

        client.guard.app = slow
        first = asyncio.ensure_future(client.exchange(path=paths[0]))
        while not arrived:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(client.exchange(path=paths[1]))
        while len(arrived) < 2 and not second.done():
            await asyncio.sleep(0)
        both.set()
        return await asyncio.gather(first, second)

    return asyncio.run(requests())


def test_more_requests_at_once_than_allowed_are_refused():
    first, second = together(Client(max_concurrent_requests=1), "/v1/score", "/v1/score")
    assert (first[0], second[0]) == (200, 429)
    assert second[1][b"retry-after"] == b"1"
    assert detail(second) == "expected at most 1 requests at once; try again in 1 s"


def test_clients_that_send_slowly_take_no_places():
    client = Client(max_concurrent_requests=1)

    async def requests():
        slow = asyncio.ensure_future(client.exchange(body(b"{", True)))
        await asyncio.sleep(0)
        answer = await client.exchange()
        slow.cancel()
        return answer

    assert asyncio.run(requests())[0] == 200


def test_bodies_that_are_received_at_once_are_bounded():
    client = Client(payload_limit=1024)

    async def requests():
        slow = [asyncio.ensure_future(client.exchange(body(b"x" * 1000, True))) for _ in range(RECEIVING + 2)]
        await asyncio.sleep(0.01)
        one_more = await client.exchange(body(b"x" * 1000, True), body(b"x"))
        for waiting in slow:
            waiting.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return one_more

    status, headers, _ = asyncio.run(requests())
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert client.send()[0] == 200


@pytest.mark.parametrize(
    ("path", "method"),
    [("/ui/gradio_api/upload", "POST"), ("/ui/gradio_api/file=/etc/hosts", "GET"), ("/ui/gradio_api/proxy=x", "GET")],
)
def test_the_page_takes_and_shows_no_files(path, method):
    client = Client()
    assert client.send(path=path, method=method)[0] == 404
    assert client.app.bodies == []


def test_probes_are_answered_however_many_requests_run():
    assert [answer[0] for answer in together(Client(max_concurrent_requests=1), "/v1/score", "/livez")] == [200, 200]


def test_requests_one_after_the_other_are_not_at_once():
    client = Client(max_concurrent_requests=1)
    assert [client.send()[0] for _ in range(3)] == [200, 200, 200]


def test_a_request_is_counted_by_the_template_of_its_route():
    client = Client(App(status=422))
    client.send(path="/route/7")
    assert client.count("/route/{name}", 422) == 1


def test_a_refused_request_is_counted_without_its_path():
    client = Client(keys=["secret"])
    client.send(path="/anything")
    assert client.count("none", 401) == 1


def test_an_application_that_raises_is_counted_as_a_failure():
    async def broken(scope, receive, send):
        raise RuntimeError("broken")

    client = Client(broken)
    with pytest.raises(RuntimeError, match="broken"):
        client.send()
    assert client.count("none", 500) == 1
    assert client.guard.running == 0


def test_a_websocket_is_closed():
    async def connect():
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await Client().guard({"type": "websocket"}, receive, send)
        return sent

    assert asyncio.run(connect()) == [{"type": "websocket.close", "code": 1008}]


def test_the_lifespan_reaches_the_application():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Client(app).guard({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_a_request_that_the_end_of_the_server_cuts_off_is_to_be_sent_again():
    """A second signal ends the loop: the client gets what it retries, not an error of the server."""

    async def forever(scope, receive, send):
        await asyncio.Event().wait()

    client = Client(forever)

    async def cut_off():
        asked = asyncio.create_task(client.exchange())
        await asyncio.sleep(0.05)
        asked.cancel()
        return await asked

    status, headers, _ = asyncio.run(cut_off())
    assert status == 503
    assert headers[b"retry-after"] == b"1"
