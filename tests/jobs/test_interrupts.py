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
