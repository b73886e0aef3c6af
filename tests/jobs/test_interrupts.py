"""A filter job that is stopped ends in order, and the same command continues it."""

import json
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.processes import ranker_until


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGINT], 130), ([signal.SIGTERM, signal.SIGTERM], 143)],
)
def test_a_stopped_filter_says_what_is_done_and_leaves_no_temporary_file(signals, code, model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for number in range(12_000):
            row = {"prompt": f"p{number}", "candidates": [f"a {number}", "b b"], "note": "not read"}
            file.write(json.dumps(row) + "\n")
    command = ["filter", rows, "--onnx", model, "-o", tmp_path / "out", "--part-rows", 1500, "--quiet"]
    ended = ranker_until("columns not used: note", signals, *command)
    assert ended.returncode == code, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert "of 8 parts" in last, "the threads that computed were joined: nothing aborts after the last line"
    assert "The same command continues" in last
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
    if len(signals) == 1:
        again = [sys.executable, "-m", "ranker", *map(str, command)]
        done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        scored_rows = [json.loads(line) for path in sorted((tmp_path / "out").glob("part-*")) for line in path.open()]
        assert [row["prompt"] for row in scored_rows] == [f"p{number}" for number in range(12_000)]


def test_a_stopped_score_leaves_no_temporary_file(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "candidates": ["a", "b b"], "note": "not read"}\n' * 9000)
    ended = ranker_until(
        "columns not used: note", [signal.SIGTERM], "score", "--onnx", model, "-i", rows, "-o", tmp_path / "out.jsonl"
    )
    assert ended.returncode == 143, ended.stderr
    assert "out.jsonl was not written" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


INTERRUPTED = """
import sys, threading
from pathlib import Path
from ranker import atomic
from ranker.jobs.leases import Lease
from ranker.signals import Stopped

def interrupt_once(owner, name):
    function = getattr(owner, name)

    def interrupted(*_, **__):
        setattr(owner, name, function)
        raise Stopped(15)

    setattr(owner, name, interrupted)

step, folder = sys.argv[1], Path(sys.argv[2])
lease = Lease(folder / ".part-0.lease")
if step == "taking a lease":
    interrupt_once(threading.Thread, "start")
    lease.take()
elif step == "releasing a lease":
    lease.take()
    interrupt_once(lease._done, "set")
    lease.release()
else:
    with atomic.draft_file(folder / "rows.jsonl") as draft:
        draft.write_text("half")
        interrupt_once(Path, "unlink")
        raise ValueError
"""
"""A signal between two instructions that clean up."""


@pytest.mark.parametrize("step", ["taking a lease", "releasing a lease", "removing a draft"])
def test_a_signal_between_two_instructions_leaves_no_file(step, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, step, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert "Stopped" in ended.stderr
    assert list(tmp_path.iterdir()) == []
