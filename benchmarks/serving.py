"""The server beside the bare engine and a naive server, under overload, and for a long time.

    python benchmarks/serving.py runs/encoder-bradley-terry/model.int8.onnx [--rows ROWS] [--single] [--out FILE]
    python benchmarks/serving.py runs/encoder-bradley-terry/model.int8.onnx --single --compare docs/serving.json
    python benchmarks/serving.py runs/encoder-bradley-terry/model.int8.onnx --soak 15

Clients, server and engine share this machine's processors. The naive servers do one forward per request in the
framework's threads: with the same model.onnx, and with the checkpoint beside it in torch, as one writes it with
transformers. ``--single`` sends every answer as an item of its own. Rounds are interleaved (bare, served, naive, ...);
figures are medians, ratios are of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from conditions import conditions

try:
    from uvloop import run
except ImportError:
    from asyncio import run

import ranker
from ranker.data.formats import parse_group
from ranker.data.readers import read_rows
from ranker.records import Group
from ranker.runtime.session import processor

CLIENTS = 32
FEW = 8
"""Clients that a server with the default queue serves without refusing one."""

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Load:
    """The result of a load: seconds of accepted requests, and the count of every status."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wall: float = 0.0

    @property
    def rate(self):
        return self.statuses.get(200, 0) / self.wall

    def percentile(self, share):
        return float(np.quantile(self.seconds, share)) if self.seconds else float("nan")


class Client(asyncio.Protocol):
    """One connection that is kept open; as little Python per request as possible."""

    def __init__(self, port):
        self.port = port
        self.transport = None
        self.answer = None
        self.received = b""

    async def post(self, route, body):
        loop = asyncio.get_running_loop()
        if self.transport is None:
            await loop.create_connection(lambda: self, "127.0.0.1", self.port)
        self.answer = loop.create_future()
        self.received = b""
        self.transport.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (route.encode(), len(body), body)
        )
        return await self.answer

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        head, end, content = self.received.partition(b"\r\n\r\n")
        if end and len(content) >= int(LENGTH.search(head)[1]):
            self.answer.set_result((int(head[9:12]), content))

    def connection_lost(self, error):
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((0, b""))

    def close(self):
        if self.transport is not None:
            self.transport.close()


async def closed_loop(port, route, bodies, clients):
    """``clients`` that each send the next body after the response to the last one."""
    load, queue = Load(), iter(bodies)
    started = time.perf_counter()

    async def one():
        client = Client(port)
        for body in queue:
            sent = time.perf_counter()
            status, _ = await client.post(route, body)
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if status == 200:
                load.seconds.append(time.perf_counter() - sent)
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    load.wall = time.perf_counter() - started
    return load


async def open_loop(port, route, bodies, rate, seconds):
    """Requests that arrive at ``rate`` per second, whether earlier ones were answered or not."""
    load = Load()
    free = []
    running = set()
    started = time.perf_counter()

    async def one(body):
        client = free.pop() if free else Client(port)
        sent = time.perf_counter()
        status, _ = await client.post(route, body)
        load.statuses[status] = load.statuses.get(status, 0) + 1
        if status == 200:
            load.seconds.append(time.perf_counter() - sent)
        free.append(client)

    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        task = asyncio.create_task(one(bodies[number % len(bodies)]))
        running.add(task)
        task.add_done_callback(running.discard)
    while running:
        await asyncio.wait(running)
    load.wall = time.perf_counter() - started
    for client in free:
        client.close()
    return load


def start(command):
    """A server process and its port."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "http://127.0.0.1:" in line:
            return process, int(line.split("http://127.0.0.1:")[1].split()[0])
    raise SystemExit(f"{command} did not start")


def served(model, *args):
    return [sys.executable, "-m", "ranker", "serve", "--onnx", model, "--port", "0", *args]


def naive(model):
    """A minimal server: one forward per request, in the framework's threads."""
    import fastapi
    import uvicorn

    scorer = ranker.load(model).scorer
    app = fastapi.FastAPI()

    @app.post("/v1/score")
    def score(body: dict):
        (result,) = scorer.score([parse_group(body, "request")])
        return {"scores": result.scores.tolist()}

    uvicorn.run(app, host="127.0.0.1", port=0, access_log=False)


def compare(model, groups, bodies, rounds):
    scorer = ranker.load(model).scorer
    scorer.score(groups[:200])
    commands = {
        "served": served(model, "--limit", "queue_seconds=60"),
        "naive, same engine": [sys.executable, __file__, model, "--naive"],
    }
    checkpoint = Path(model).parent / "checkpoint"
    if checkpoint.exists():
        commands["naive, torch"] = [sys.executable, __file__, str(checkpoint), "--naive"]
    servers = {name: start(command) for name, command in commands.items()}
    rates = {"bare": [], **{name: [] for name in servers}}
    try:
        for _ in range(rounds + 1):  # the first warms up
            started = time.perf_counter()
            scorer.score(groups)
            rates["bare"].append(len(groups) / (time.perf_counter() - started))
            for name, (_, port) in servers.items():
                rates[name].append(run(closed_loop(port, "/v1/score", bodies, CLIENTS)).rate)
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait(60)
    measured = {name: values[1:] for name, values in rates.items()}
    ratios = {
        name: statistics.median(x / y for x, y in zip(measured["served"], values, strict=True))
        for name, values in measured.items()
        if name != "served"
    }
    return {
        "items_per_second": {name: round(statistics.median(values), 1) for name, values in measured.items()},
        "served_of": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "rounds": rounds,
        "items": len(groups),
        "clients": CLIENTS,
    }


SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


def pin(core):
    """Keep this process, which makes the load, on one core; None frees it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core} if core is not None else CORES)


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


async def probes(port, ended, seconds):
    """Ask ``/livez`` every 50 ms until ``ended``."""
    while not ended.is_set():
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(0.05)


async def probed(load, port):
    """A load, and the seconds of ``/livez`` meanwhile."""
    ended, seconds = asyncio.Event(), []
    probe = asyncio.create_task(probes(port, ended, seconds))
    result = await load
    ended.set()
    await probe
    return result, seconds


def counts(port):
    """Answered requests by status, as the server counts them."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    total = {}
    for status, count in re.findall(
        r'^ranker_requests_total\{.*route="/v1/score".*status="(\d+)"\} ([\d.]+)', text, re.M
    ):
        total[int(status)] = total.get(int(status), 0) + int(float(count))
    for status, count in re.findall(r'^ranker_requests_total\{.*route="none".*status="(\d+)"\} ([\d.]+)', text, re.M):
        total[int(status)] = total.get(int(status), 0) + int(float(count))
    return total


def overload(model, bodies, seconds):
    """Requests beyond what the server can do, from a generator on one core.

    The peak is measured with that core taken: by the generator, and by a process that spins.
    """
    server, port = start(served(model))
    core = max(CORES, default=0)
    try:
        run(closed_loop(port, "/v1/score", bodies[:200], FEW))
        pin(core)
        spinner = subprocess.Popen([sys.executable, "-c", SPIN % core])
        peak = run(closed_loop(port, "/v1/score", bodies, FEW))
        spinner.kill()
        spinner.wait()
        report = {
            "peak_items_per_second": round(peak.rate, 1),
            "processor": processor(),
            "date": time.strftime("%Y-%m-%d"),
        }
        for times in (1, 2, 10):
            before = counts(port)
            load, live = run(probed(open_loop(port, "/v1/score", bodies, times * peak.rate, seconds), port))
            after = counts(port)
            total = sum(load.statuses.values())
            report[f"{times}x"] = {
                "goodput_of_peak": round(load.rate / peak.rate, 3),
                "accepted_p50_seconds": round(load.percentile(0.5), 3),
                "accepted_p99_seconds": round(load.percentile(0.99), 3),
                "accepted_most_seconds": round(max(load.seconds, default=0.0), 3),
                "refused": round(load.statuses.get(429, 0) / total, 3),
                "livez_p99_seconds": round(float(np.quantile(live, 0.99)), 3),
                "statuses": load.statuses,
                "counted_by_the_server": {s: n - before.get(s, 0) for s, n in after.items() if n != before.get(s, 0)},
            }
        return report
    finally:
        pin(None)
        server.terminate()
        server.wait(60)


WRONG = [
    b'{"prompt": 1}',
    b"[" * 1_000_000,
    b'{"prompt": "p", "candidates": [' + b"[]," * 600_000 + b"[]]}",
    b'{"items": [' + b'{"prompt": "p", "candidates": ["a"]},' * 20_000 + b"1]}",
    b"x" * 3_000_000,
]
"""Bodies that are refused."""


HEAVY = json.dumps({"prompt": "p" * 200, "candidates": [f"{n} " * 80 for n in range(180)]}).encode()
HALVES = [b"", b"GET / HT", b"POST /v1/score HTTP/1.1\r\ncontent-length: 99\r\n\r\n{"]
"""A body that takes long, and beginnings of requests that never end."""


async def leave(port, body, seconds):
    """Send a request, and go after so many seconds."""
    gone = Client(port)
    request = asyncio.create_task(gone.post("/v1/score", body))
    await asyncio.sleep(seconds)
    request.cancel()
    gone.close()


async def half_open(port, beginning):
    """A connection that has sent the beginning of a request."""
    _, connection = await asyncio.open_connection("127.0.0.1", port)
    connection.write(beginning)
    return connection


def soak(model, bodies, minutes, clients, pause):
    """Mixed load: memory and descriptors over time.

    Single items, batches, refused bodies of all sizes, clients that go away, heavy ones too, and connections that send
    nothing or half a request.
    """
    server, port = start(served(model))
    draw = random.Random(0)
    samples = []
    statuses = {}
    opened = []
    slowest = {}
    items = [json.loads(body) for body in bodies]
    end = time.monotonic() + minutes * 60

    async def client():
        connection = Client(port)
        while time.monotonic() < end:
            await asyncio.sleep(draw.random() * pause)
            kind = draw.random()
            if kind < 0.8:
                single, batch = draw.choice(bodies), json.dumps({"items": draw.sample(items, 16)}).encode()
                body = single if kind < 0.5 else batch if kind < 0.7 else draw.choice(WRONG)
                asked = time.monotonic()
                status, _ = await connection.post("/v1/score", body)
                statuses[status] = statuses.get(status, 0) + 1
                slowest[status] = max(slowest.get(status, 0.0), round(time.monotonic() - asked, 2))
            elif kind < 0.9:
                await leave(port, draw.choice([HEAVY, *draw.sample(bodies, 4)]), draw.random() * 0.1)
            else:
                opened.append(await half_open(port, draw.choice(HALVES)))
                if len(opened) > 200:
                    opened.pop(0).close()
        connection.close()

    async def watch():
        started = time.monotonic()
        while time.monotonic() < end:
            pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{server.pid}/fd"))
            samples.append((time.monotonic() - started, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files))
            await asyncio.sleep(5)

    async def everyone():
        await asyncio.gather(watch(), *(client() for _ in range(clients)))

    try:
        run(everyone())
        for half in opened:
            half.close()
        time.sleep(2)
        files = len(os.listdir(f"/proc/{server.pid}/fd"))
    finally:
        server.terminate()
        code = server.wait(60)
    late = np.array(samples[len(samples) // 3 :])
    return {
        "minutes": minutes,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
        "statuses": statuses,
        "slowest_seconds": slowest,
        "rss_mib": {"first": round(samples[0][1]), "third": round(float(late[0, 1])), "last": round(samples[-1][1])},
        "rss_slope_mib_per_hour": round(float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 3600), 1),
        "descriptors": {"first": samples[0][2], "most": int(late[:, 2].max()), "after": files},
        "exit": code,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", default="data/test.jsonl")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload-seconds", type=float, default=20)
    parser.add_argument("--single", action="store_true", help="every answer is an item of its own")
    parser.add_argument("--compare", type=Path, help="a JSON file for the speed alone; models of before stay in it")
    parser.add_argument("--overload", action="store_true", help="measure nothing else")
    parser.add_argument("--soak", type=float, help="minutes; nothing else is measured")
    parser.add_argument("--clients", type=int, default=16, help="of the soak")
    parser.add_argument("--pause", type=float, default=0.0, help="most seconds between two requests of one of them")
    parser.add_argument("--naive", action="store_true", help="be the naive server")
    parser.add_argument("--out", default="-")
    args = parser.parse_args()
    if args.naive:
        naive(args.model)
        return
    rows = [row for _, row in islice(read_rows(args.rows), args.items)]
    groups = [parse_group(row, str(number)) for number, row in enumerate(rows)]
    if args.single:
        groups = [Group(group.prompt, (answer,)) for group in groups for answer in group.candidates][: args.items]
    items = [{"prompt": g.prompt, "candidates": list(g.candidates)} for g in groups if isinstance(g.prompt, str)]
    bodies = [json.dumps(item).encode() for item in items]
    if args.compare:
        kept = json.loads(args.compare.read_text()) if args.compare.exists() else {}
        sides = conditions() | compare(args.model, groups, bodies, args.rounds)
        kind = "single answers" if args.single else "lists of candidates"
        scorer = ranker.load(args.model).scorer
        kept[f"{kind}, `{scorer.info.layout}` {scorer.precision}"] = sides
        args.compare.write_text(json.dumps(kept, indent=1) + "\n")
        return
    if args.overload:
        report = overload(args.model, bodies, args.overload_seconds)
    elif args.soak:
        report = soak(args.model, bodies, args.soak, args.clients, args.pause)
    else:
        report = compare(args.model, groups, bodies, args.rounds)
        report["overload"] = overload(args.model, bodies, args.overload_seconds)
    text = json.dumps(report, indent=1)
    print(text) if args.out == "-" else Path(args.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
