"""The script for GPUs runs whole on a CPU, so that nothing of it fails for the first time on a card."""

import contextlib
import importlib
import io
import json
import sys

import pytest

from tests.conftest import ROOT

PARTS = [
    "machine",
    "parity",
    "passes",
    "scoring",
    "budgets",
    "kernels",
    "groups of eight",
    "training",
    "profile",
    "decoder",
    "whole process",
    "serving",
    "memory",
]


def smoke(folder):
    """What ``benchmarks/gpu.py --smoke`` prints, started in ``folder``."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setattr(sys, "argv", ["gpu.py", "--smoke"])
        importlib.import_module("gpu").main()
    return printed.getvalue()


def test_every_part_gives_figures_that_say_what_was_measured(tmp_path):
    printed = smoke(tmp_path)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    by_part = {part: [line for line in lines if line["part"] == part] for part in PARTS}
    assert list(dict.fromkeys(line["part"] for line in lines)) == PARTS
    assert all(f"### {part}\n" in printed for part in PARTS)  # the tables of docs/gpu.md
    assert not [line for line in lines if "failed" in line]
    assert all(value > 0 for line in lines for name, value in line.items() if "per_second" in name)

    trained = {line["side"]: line for line in by_part["training"]}
    assert trained.keys() >= {"ranker", "ranker, prefetch", "ranker, buckets, prefetch", "TRL", "CrossEncoderTrainer"}
    assert trained["ranker, buckets, prefetch"]["shapes"] < trained["ranker"]["shapes"]
    scored = {line["side"] for line in by_part["scoring"]}
    assert scored >= {"torch bf16", "torch bf16, no padding", "ONNX fp32", "ONNX fp16", "CrossEncoder bfloat16"}

    exact = [line for line in by_part["parity"] if line["side"] in ("torch fp32", "ONNX fp32")]
    assert len(exact) == 2
    assert all(line["largest_difference_of_spread"] < 1e-3 and line["decisions_changed"] == 0 for line in exact)
    for line in by_part["memory"]:
        assert line["estimated_GiB"] == pytest.approx(line["measured_GiB"], rel=0.25)
    (served,) = by_part["serving"]
    assert list(served["statuses"]) == [200] or list(served["statuses"]) == ["200"]
