"""Slow, endless and broken requests are closed in time, and others are served meanwhile."""

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from ranker.serving.connections import FIELDS, PIECES, Connections
from ranker.serving.limits import Limits
from ranker.serving.metrics import Metrics

ANSWER = b"x" * 4_000_000
WHOLE = b"POST /v1/score HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


async def app(scope, receive, send):
    """Reads the body; ``/large`` answers with much, other paths with the body's length."""
    if scope["type"] != "http":
        return
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    content = ANSWER if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def serving(**limits):
    """The port and the metrics of a server with these limits."""
    metrics = Metrics()
    connections = Connections(Limits(**limits), metrics)
    config = uvicorn.Config(app, http=connections.protocol, ws="none", log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1], metrics
        finally:
            server.should_exit = True
            thread.join()


def exchange(port, *parts, pause=0.0):
    """What the server answers until it closes, or until it has answered once; parts are sent with a pause between."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            return received(client)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def received(client):
    """The whole of an answer, or of what came before the end."""
    content = b""
    while True:
        head, end, body = content.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return content
        part = client.recv(1 << 16)
        if not part:
            return content
        content += part


def status_of(answer):
    return int(answer.split(b" ")[1]) if answer else None


def test_a_request_in_single_bytes_is_served():
    with serving() as (port, _):
        assert exchange(port, *(bytes([byte]) for byte in WHOLE)).endswith(b"\r\n\r\n2")


def test_requests_that_come_together_are_served_in_order():
    with serving() as (port, _), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(WHOLE * 500)
        content = b""
        while content.count(b"HTTP/1.1 200 OK") < 500 and (part := client.recv(1 << 16)):
            content += part
        assert content.count(b"HTTP/1.1 200 OK") == 500


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET / HTTP/1.1\r\nlong: ", *[b"x" * 10_000] * 100),
        (b"GET / HTTP/1.1\r\n", b"".join(b"h%d: 1\r\n" % n for n in range(FIELDS + 1)), b"\r\n"),
        (b"GET / HTTP/1.1\r\n", *[b"name: " + b"x" * 1000 + b"\r\n"] * 100, b"\r\n"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",),
        (b"GET /", *[b"x" * 10_000] * 100),
    ],
    ids=["one value", "many fields", "long fields", "long path", "endless path"],
)
def test_a_head_beyond_the_limit_is_refused_and_counted(parts):
    with serving() as (port, metrics):
        answer = exchange(port, *parts)
        assert answer == b"" or status_of(answer) == 431
        if answer:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"].startswith("expected a head of at most")
        counts = [metrics.registry.get_sample_value("ranker_refused_total", {"reason": "head_too_long"})]
        assert counts == [1]
        assert exchange(port, WHOLE).endswith(b"2")


def test_a_head_that_does_not_end_in_time_is_refused():
    with serving(head_timeout_s=0.2) as (port, _):
        answer = exchange(port, b"GET / HTTP/1.1\r\n")
        assert status_of(answer) == 408
        assert b"expected the whole head within 0.2 s" in answer


def test_a_slow_second_request_is_refused_like_the_first():
    with serving(head_timeout_s=0.2) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(WHOLE)
        assert status_of(received(client)) == 200
        client.sendall(b"GET / HT")
        assert status_of(received(client)) == 408


def test_a_connection_without_a_byte_is_closed():
    with serving(head_timeout_s=0.2) as (port, metrics):
        assert exchange(port) == b""
        assert metrics.answered() == 0


def test_half_open_connections_leave_room_for_others():
    with serving(max_connections=32, head_timeout_s=60) as (port, _):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        try:
            for _ in range(3):
                assert exchange(port, WHOLE).endswith(b"2")
        finally:
            for client in idle:
                client.close()


def test_fields_after_the_body_are_bounded():
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    with serving() as (port, _):
        assert exchange(port, head, *[b"name: " + b"x" * 1000 + b"\r\n"] * 1000) == b""
        assert exchange(port, WHOLE).endswith(b"2")


def test_a_body_in_very_many_chunks_is_closed():
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with serving() as (port, _):
        assert exchange(port, head, b"1\r\nx\r\n" * (PIECES + 1), b"0\r\n\r\n") == b""
        assert exchange(port, head, b"1\r\nx\r\n" * 1000, b"0\r\n\r\n").endswith(b"1000")


def test_a_body_that_never_ends_is_closed_though_its_application_has_answered():
    with serving(request_timeout_s=0.1) as (port, _):
        started = time.monotonic()
        assert exchange(port, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{") == b""
        assert time.monotonic() - started < 9


def test_a_client_that_does_not_read_is_closed():
    with serving(request_timeout_s=0.3) as (port, _):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(WHOLE.replace(b"/v1/score", b"/large") * 2)
            time.sleep(1)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                client.sendall(WHOLE * 200_000)
        assert httpx.get(f"http://127.0.0.1:{port}/large").content == ANSWER


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"\x00" * 100])
def test_what_is_not_http_is_refused(junk):
    with serving() as (port, _):
        assert status_of(exchange(port, junk)) == 400
        assert exchange(port, WHOLE).endswith(b"2")
