"""How long a request's body holds the event loop of the server, for every body of ``tests/hostile``.

    python benchmarks/event_loop.py runs/pairrm/model.onnx [-o FILE]

Within the server's process a task sleeps for two milliseconds, over and over; what a sleep takes longer is how long the
loop was held. Every body is sent ``--times`` times, alone. A body's figure is the least of its worst delays, because
whatever else runs on the machine delays the loop too; the worst of all delays is given beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ranker.runtime.session import processor  # noqa: E402
from ranker.serving.serve import serve  # noqa: E402
from tests.hostile.bodies import bodies  # noqa: E402
from tests.serving.test_connections import exchange, status_of  # noqa: E402

PORT = 8471
PAUSE = 0.002
SETTLED = 0.05
"""Seconds after an answer that still belong to its request."""


def main() -> None:
    """Send all bodies and print the longest delays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    client = multiprocessing.Process(target=send, args=(theirs, options.times))
    client.start()
    delays: list[tuple[float, float]] = []
    run_watched(options.model, delays)
    sent = ours.recv()
    client.join()
    least: dict[str, float] = {}
    longest = 0.0
    for name, started, ended in sent:
        within = (seconds for at, seconds in delays if at >= started and at - seconds <= ended + SETTLED)
        delay = max(within, default=0.0)
        least[name] = min(least.get(name, delay), delay)
        longest = max(longest, delay)
    ranked = sorted(least.items(), key=lambda item: -item[1])
    facts = {
        "bodies": len(least),
        "times": options.times,
        "longest_ms": 1000 * ranked[0][1],
        "longest_of_all_ms": 1000 * longest,
        "over_50_ms": [name for name, seconds in ranked if seconds > 0.05],
        "five_longest_ms": {name: round(1000 * seconds, 1) for name, seconds in ranked[:5]},
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(facts, indent=1))
    if options.output:
        options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def run_watched(model: str, delays: list[tuple[float, float]]) -> None:
    """Serve until the client sends SIGTERM; ``delays`` gets when the loop was late, and by how many seconds."""

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PAUSE)
            now = time.perf_counter()
            delays.append((now, now - before - PAUSE))

    class Watched(uvicorn.Server):
        async def serve(self, sockets: Any = None) -> None:
            task = asyncio.create_task(watch())
            await super().serve(sockets)
            task.cancel()

    uvicorn.Server = Watched  # type: ignore[misc]
    keys: dict[str, Any] = {"api_keys": None, "insecure": False, "limit": [], "ui": False, "name": None}
    serve(model, host="127.0.0.1", port=PORT, **keys)


def send(results: Any, times: int) -> None:
    """Send every body; then stop the server, and report when each was sent and answered."""
    wait_for_server()
    sent: list[tuple[str, float, float]] = []
    for _ in range(times):
        for body in bodies():
            started = time.perf_counter()
            status_of(exchange(PORT, body.request))
            sent.append((body.name, started, time.perf_counter()))
            time.sleep(SETTLED)
    threading.Thread(target=results.send, args=(sent,)).start()
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGTERM)


def wait_for_server() -> None:
    """Return when the server answers."""
    request = b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    for _ in range(600):
        try:
            if status_of(exchange(PORT, request)) == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
