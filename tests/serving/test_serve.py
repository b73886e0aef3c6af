"""The server as a process: it starts, refuses what is open to the world, and drains."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

import ranker
from tests.conftest import ROOT


def start(model, *args, env=None):
    process = subprocess.Popen(
        [sys.executable, "-m", "ranker", "serve", "--onnx", str(model), "--port", "0", *args],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | (env or {}),
    )
    printed = ""
    for line in process.stderr:
        printed += line
        if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, f"http://127.0.0.1:{match[1]}"
    raise AssertionError(printed)


def post(address, body, key=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{address}/v1/score", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def test_it_scores_as_the_library_and_drains_on_sigterm(model):
    process, address = start(model, "--name", "mine")
    items = [{"prompt": f"p {i}", "candidates": [f"answer {i} {j} " * 20 for j in range(8)]} for i in range(60)]
    expected = ranker.load(model).score_batch([i["prompt"] for i in items], [i["candidates"] for i in items])
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(post, address, {"items": items}) for _ in range(8)]
        deadline = time.monotonic() + 20
        while not any(answer.done() for answer in answers) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        match = [answer.result() for answer in answers]
    assert process.wait(40) == 0
    assert {status for status, _, _ in match} <= {200, 503}
    done = [body for status, body, _ in match if status == 200]
    assert done
    for body in done:
        assert body["model"] == "mine"
        for result, scores in zip(body["results"], expected, strict=True):
            assert result["scores"] == pytest.approx(scores.tolist(), abs=1e-5)


def test_keys_of_the_environment_and_a_full_queue(model):
    process, address = start(model, "--limit", "queue_items=40", env={"RANKER_API_KEYS": "k1,k2"})
    try:
        body = {"items": [{"prompt": "p", "candidates": ["long " * 90] * 20}] * 40}
        assert post(address, body)[0] == 401
        with ThreadPoolExecutor(12) as clients:
            match = [f.result() for f in [clients.submit(post, address, body, "k2") for _ in range(12)]]
        statuses = [status for status, _, _ in match]
        assert set(statuses) == {200, 429}
        refused = [headers for status, _, headers in match if status == 429]
        assert all(int(headers["Retry-After"]) >= 1 for headers in refused)
        with urllib.request.urlopen(f"{address}/readyz") as ready:
            assert ready.status == 200
    finally:
        process.terminate()
        assert process.wait(40) == 0


@pytest.mark.parametrize(
    ("args", "printed"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 is reachable from other machines; give keys"),
        (["--limit", "max_client_batch=3"], "did you mean 'max_client_batch_size'?"),
        (
            ["--limit", "max_client_batch_size=none"],
            "--limit max_client_batch_size=none: Input should be a valid integer",
        ),
        (["--api-keys", "no-such-file"], "expected a file with one API key a line"),
    ],
)
def test_what_is_misused_is_said_in_one_line(model, args, printed):
    done = subprocess.run(
        [sys.executable, "-m", "ranker", "serve", "--onnx", str(model), *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 2
    assert printed in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_said(model):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "ranker", "serve", "--onnx", str(model), "--port", port],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
    assert done.returncode == 2
    assert f"--port {port}: Address already in use; choose another port" in done.stderr


def test_logs_are_objects_that_name_requests_and_both_ends(model):
    process = subprocess.Popen(
        [sys.executable, "-m", "ranker", "serve", "--onnx", str(model), "--port", "0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    first = json.loads(process.stderr.readline())
    assert first["logger"] == "ranker.server"
    assert first["address"].startswith("http://127.0.0.1:")
    assert (first["model"], first["keys"], first["level"]) == (str(model), False, "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert post(first["address"], {"prompt": "a secret text", "candidates": ["a", "b"]})[0] == 200
    assert post(first["address"], {"prompt": "p"})[0] == 422
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=40)[1]
    assert process.returncode == 0
    *entries, last = [json.loads(line) for line in printed.splitlines()]
    requests = [entry for entry in entries if "path" in entry]  # an answer is sent before its line is written
    (stopping,) = [entry for entry in entries if "path" not in entry]
    assert stopping["message"].startswith("stopping: accepted requests are finished within 30 s")
    assert stopping["signal"] == "SIGTERM"
    assert (last["requests"], last["drained"]) == (2, True)
    assert last["message"].startswith("stopped after ")
    assert [(entry["path"], entry["status"]) for entry in requests] == [("/v1/score", 200), ("/v1/score", 422)]
    assert all(entry["seconds"] > 0 and entry["client"] == "127.0.0.1" for entry in requests)
    assert "secret text" not in printed


def test_a_second_signal_ends_the_server_without_a_traceback(model):
    process = subprocess.Popen(
        [sys.executable, "-m", "ranker", "serve", "--onnx", str(model), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    port = int(process.stderr.readline().rpartition(":")[2])
    body = json.dumps(
        {"items": [{"prompt": "p", "candidates": [f"{i} {j}" + " word" * 100 for j in range(20)]} for i in range(200)]}
    )
    head = (
        f"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        connection.sendall((head + body).encode())
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        answered = connection.recv(1 << 16)
    printed = process.communicate(timeout=40)[1]
    assert answered.startswith((b"HTTP/1.1 503", b"HTTP/1.1 200")), "cut off, or computed in time"
    assert process.returncode == 0
    assert "stopping: " in printed
    assert "Traceback" not in printed


def test_a_real_prometheus_scrapes_every_figure(model, tmp_path):
    """Prometheus' own binary reads what the server shows, with a key."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus")
    process, address = start(model, env={"RANKER_API_KEYS": "secret"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "ranker",
                "authorization": {"credentials": "secret"},
                "static_configs": [{"targets": [address.removeprefix("http://")]}],
            }
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(json.dumps(config))
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        assert post(address, {"prompt": "p", "candidates": ["a", "b"]}, "secret")[0] == 200
        names = ("ranker_requests_total", "ranker_batch_seconds_bucket", "ranker_tokens_total", "ranker_model_info")
        seen: set[str] = set()
        deadline = time.monotonic() + 30
        while set(names) - seen and time.monotonic() < deadline:
            time.sleep(0.5)
            with suppress(OSError):
                reply = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/label/__name__/values")
                seen = set(json.load(reply)["data"])
        assert set(names) <= seen
    finally:
        prometheus.terminate()
        prometheus.wait(20)
        process.terminate()
        process.wait(20)


@pytest.mark.full
def test_a_pass_that_outlives_the_drain_does_not_abort_the_process(model):
    """Python's shutdown aborts (exit code -6) where a thread still computes in the engine."""
    limits = [
        "max_client_batch_size=2000",
        "candidates=64",
        "readings=1000000",
        "payload_limit=20000000",
        "drain_seconds=1",
    ]
    process, address = start(model, *(part for limit in limits for part in ("--limit", limit)))
    items = [{"prompt": f"p {i}", "candidates": [f"answer {i} {j} " * 25 for j in range(32)]} for i in range(1500)]
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(post, address, {"items": items})
        while not is_computing(address):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        with suppress(OSError, http.client.HTTPException, ValueError):  # what its client sees is not the subject
            answer.result()
    assert process.wait(40) == 0


def is_computing(address):
    """Whether work was taken from the queue and is being computed."""
    text = urllib.request.urlopen(f"{address}/metrics").read().decode()
    counts = {
        name: float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1])
        for name in ("ranker_items_total", "ranker_queue_items")
    }
    return counts["ranker_items_total"] > 0 and counts["ranker_queue_items"] == 0
