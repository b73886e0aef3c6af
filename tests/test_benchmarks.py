"""The script for GPUs runs whole on a CPU, so that nothing of it fails for the first time on a card."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PARTS = (
    "machine",
    "parity",
    "scoring",
    "groups of eight",
    "training",
    "decoder",
    "whole process",
    "serving",
    "memory",
)


@pytest.fixture(scope="module")
def lines():
    """What ``benchmarks/gpu.py --smoke`` prints, started from another folder."""
    script = ROOT / "benchmarks" / "gpu.py"
    command = [sys.executable, "-W", "ignore", str(script), "--smoke"]
    done = subprocess.run(command, cwd=os.sep, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(f"### {part}\n" in done.stdout for part in PARTS)  # the tables of docs/gpu.md
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_every_part_gives_figures(lines):
    assert tuple(dict.fromkeys(line["part"] for line in lines)) == PARTS
    assert not [line for line in lines if "failed" in line]
    for line in lines:
        speeds = [value for name, value in line.items() if "per_second" in name]
        assert all(speed > 0 for speed in speeds)


def test_all_sides_of_the_trainings_and_scorings_are_there(lines):
    trained = {line["side"] for line in lines if line["part"] == "training"}
    assert trained >= {"ranker", "ranker, buckets", "ranker, buckets, prefetch", "TRL", "CrossEncoderTrainer"}
    scored = {line["side"] for line in lines if line["part"] == "scoring"}
    assert scored >= {"torch bf16", "torch bf16, no padding", "ONNX fp32", "ONNX fp16", "CrossEncoder bfloat16"}


def test_figures_say_the_same_as_what_is_measured(lines):
    for line in (line for line in lines if line["part"] == "parity" and line["side"] in ("torch fp32", "ONNX fp32")):
        assert line["largest_difference_of_spread"] < 1e-3
        assert line["decisions_changed"] == 0
    for line in (line for line in lines if line["part"] == "memory"):
        assert line["said_GiB"] == pytest.approx(line["measured_GiB"], rel=0.25)
    (served,) = [line for line in lines if line["part"] == "serving"]
    assert list(served["statuses"]) == ["200"]
    figures = {line["side"]: line for line in lines if line["part"] == "training"}
    assert figures["ranker, buckets"]["shapes"] < figures["ranker"]["shapes"]
