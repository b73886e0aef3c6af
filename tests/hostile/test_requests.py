"""A server under requests that mean harm: each is refused in a line or answered, and everybody else is served."""

import json
import re
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.hostile.bodies import ROUTES, SIZE, Head, bodies, heads
from tests.serving.test_connections import exchange, status_of
from tests.serving.test_serve import start
from tests.support.selection import cases

SMALL = 100_000
"""Bytes of the largest body that ``make test`` sends."""

REFUSALS = {400, 401, 404, 405, 408, 413, 422, 429, 431, 503}
MEMORY = 500 << 20
PATIENCE_S = 5
"""A second on a machine that does nothing else, where ``/livez`` takes less than 0.1 s; this one runs other tests."""


@pytest.fixture(scope="module")
def address(pointwise):
    process, address = start(pointwise, "--limit", "head_timeout_s=2", "--limit", "request_timeout_s=5")
    yield process, int(address.rpartition(":")[2])
    process.terminate()
    assert process.wait(30) == 0


class Probes:
    """Asks ``/livez`` every 20 ms within the block, and for a score every half second."""

    def __init__(self, port):
        self.port = port
        self.seconds = []
        self.scores = []
        self._ended = threading.Event()

    def __enter__(self):
        self._threads = [threading.Thread(target=self._live), threading.Thread(target=self._score)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _live(self):
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            while not self._ended.wait(0.02):
                started = time.perf_counter()
                assert client.get("/livez").status_code == 200
                self.seconds.append(time.perf_counter() - started)

    def _score(self):
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            while True:
                answer = client.post("/v1/score", json={"prompt": "p", "candidates": ["a", "b"]})
                self.scores.append(answer.status_code)
                if self._ended.wait(0.5):
                    return


def memory_of(process):
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) << 12


def files_of(process):
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def checked(answer, name):
    """An answer's status: a whole response, and a refusal in a line that says what is wrong."""
    status = status_of(answer)
    assert status in REFUSALS | {200}, (name, answer[:300])
    head, _, content = answer.partition(b"\r\n\r\n")
    if status != 200:
        assert len(content) < 3000, name
        assert b"Traceback" not in content
        assert json.loads(content)["detail"]
    if status in (429, 503):
        assert b"retry-after" in head.lower(), name
    return status


ALL = [(None, SMALL), *((route, SIZE) for route in [*ROUTES, None])]
"""Parts of the corpus: a route, or None for those without one of their own, and the most bytes of a body."""


@pytest.mark.parametrize(("route", "most"), cases(ALL, lambda part: part[1] == SMALL))
def test_every_body_is_refused_soon_or_answered(address, route, most):
    process, port = address
    before = memory_of(process)
    with Probes(port) as probes:
        for body in bodies():
            if len(body.content) > most or (most == SIZE and body.name.startswith(route or "") is (route is None)):
                continue
            started = time.perf_counter()
            status = checked(exchange(port, body.request), body.name)
            assert status == 200 or time.perf_counter() - started < PATIENCE_S, body.name
    assert set(probes.scores) == {200}
    assert max(probes.seconds) < PATIENCE_S
    assert memory_of(process) - before < MEMORY


@pytest.mark.parametrize(
    "head", cases(list(heads()), lambda head: len(b"".join(head.parts)) < 200_000), ids=lambda h: h.name
)
def test_every_head_is_refused_or_its_connection_closed(address, head: Head):
    process, port = address
    before = memory_of(process)
    with Probes(port) as probes:
        answer = exchange(port, *head.parts, pause=head.pause)
    if answer:
        status = int(answer.split(b" ")[1])
        assert status in REFUSALS | {200, 100, 307}, answer[:200]
    assert set(probes.scores) == {200}
    assert memory_of(process) - before < MEMORY


def test_the_server_counts_what_clients_saw_and_keeps_no_files_open(address):
    process, port = address
    files = files_of(process)
    before = counts(port)
    seen = Counter(status_of(exchange(port, body.request)) for body in bodies() if len(body.content) < SMALL)
    after = counts(port)
    after[200] -= 1  # the question itself
    assert after - before == seen
    assert files_of(process) <= files + 2


def counts(port):
    """Answered requests by status."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = re.findall(r'^ranker_requests_total\{.*status="(\d+)"\} ([\d.]+)', text, re.MULTILINE)
    total = Counter()
    for status, count in lines:
        total[int(status)] += int(float(count))
    return total
