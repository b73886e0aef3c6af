"""The benchmarks run whole on a small scale, so that nothing fails for the first time on a card or after hours."""

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


def shape_of(value):
    """The names in a JSON value; of a list, those of its first member."""
    if isinstance(value, dict):
        return {name: shape_of(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape_of(part) for part in value[:1]]
    return None


def of_docs(name):
    return json.loads((ROOT / "docs" / f"{name}.json").read_text())


@pytest.fixture
def script(monkeypatch):
    """Imports a script of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


SHARE = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 4}


def test_the_summary_of_runs_on_human_preferences_is_what_the_pages_read(script):
    conditions = script("conditions").conditions("torch", "transformers")
    means = {"accuracy": SHARE, "log_loss": SHARE, "order_flips": SHARE, "baselines": {"random": SHARE}}
    run = {"set": "argconv", "model": "pointwise", "rows": 10, "steps": 3, "seconds": 2.0, "conditions": conditions}
    summary = script("real_data").summary([run | means | {"seed": seed} for seed in (0, 1)])
    assert summary["sets"]["argconv"]["models"]["pointwise"]["accuracies"] == [0.75, 0.75]
    kept = of_docs("real_data")
    assert shape_of(summary["sets"]["argconv"]["models"]["pointwise"]) == shape_of(
        kept["sets"]["argconv"]["models"]["pointwise"]
    )
    assert summary.keys() == kept.keys()


def test_the_summary_of_group_sizes_is_what_the_pages_read(script):
    line = {"n": 4, "way": "auto", "comparisons": 6.0, "random": 0.3, "hit": SHARE, "tau_b": SHARE}
    run = {"model": "set_encoder-2", "rows": 9, "figures": [line], "conditions": script("conditions").conditions()}
    summary, kept = script("group_sizes").summary([run]), of_docs("group_sizes")
    assert summary["random"] == {"4": 0.3}
    assert shape_of(summary["figures"]) == shape_of(kept["figures"])
    assert summary.keys() == kept.keys()


def test_the_summary_of_comparison_graphs_is_what_the_pages_read(script):
    point = {"tokens": 100, "padded": 120, "seconds": 4.0, "cpu": 3.0, "accuracy": 0.7}
    shared = {"set": "argconv-0", "seed": 0, "label": "", "machine": "a processor", "threads": 1, "date": "2026-12-01"}
    shared |= {"versions": {"torch": "2"}, "points": [point], "tokens_per_second": 10.0, "prompts": ["p", "q"]}
    summary = script("training").graphs(
        [shared | {"side": "once", "credits": [1.0, 1.0]}, shared | {"side": "pairs", "credits": [1.0, 0.0]}]
    )
    kept = of_docs("graphs")
    assert summary["differences"][0]["value"] == 0.5
    assert shape_of(summary["differences"]) == shape_of(kept["differences"])
    assert shape_of(summary["sets"]["argconv"]["sides"]["once"]) == shape_of(kept["sets"]["argconv"]["sides"]["once"])
    assert summary.keys() == kept.keys()


def test_the_simulation_of_schedules_prints_what_the_pages_read(script, monkeypatch, capsys):
    schedules = script("schedules")
    monkeypatch.setattr(sys, "argv", ["schedules.py", "--sizes", "4", "--worlds", "20"])
    schedules.main()
    printed = json.loads(capsys.readouterr().out)
    assert {line["schedule"] for line in printed["figures"]} > {"all", "knockout"}
    assert shape_of(printed) == shape_of(of_docs("schedules"))
    exhaustive = next(line for line in printed["figures"] if line["schedule"] == "all, both orders")
    assert exhaustive["comparisons"] == 12
