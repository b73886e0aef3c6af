"""What 8-bit numbers cost a model, by how they are made: ranks, decisions and speed beside the torch model.

    python benchmarks/int8.py runs/pairrm/checkpoint [--rounds 5] -o docs/int8.json

All products of a plan have the same kind of scales; the last plans are those that ``ranker export`` picks. Ranks and
decisions are measured by the parity gate on rows of ``sample:validation``, as an export measures them. Speed is that of
``GROUPS`` groups of ``sample:test``: the median over rounds of the ratio to fp32 in the same round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from conditions import conditions

from ranker.checkpoints import native
from ranker.data.load import load_preferences
from ranker.export import graph, parity, search
from ranker.export.rounding import Scheme
from ranker.export.search import WEIGHTS_ONLY, QuantPlan
from ranker.models.torch_scorer import TorchScorer
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.scoring.pipeline import TextPipeline

GROUPS = 60
UNIFORM: dict[str, Scheme] = {
    "fixed scales, all products": "fixed",
    "outlier channels in fp32 beside all products": "outliers",
    "a scale per token, all products": "token",
}


def main() -> None:
    """Make the files, measure them, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    model, tokenizer = native.load(options.checkpoint)
    source = TorchScorer(model, tokenizer)
    rows = load_preferences(["sample:validation"]).preferences
    weights = model.num_parameters(exclude_embeddings=True)
    reference = parity.Reference(source, rows, max_length=model.layout.max_length, weights=weights)
    with tempfile.TemporaryDirectory(prefix="ranker-int8-") as folder:
        bare = Path(folder, "graph.onnx")
        graph.to_onnx(model, bare)
        scorer = partial(GraphScorer, layout=source.pipeline.layout, tokenizer=tokenizer, device="cpu", large=False)
        scorers, plans = {"fp32": scorer(bare)}, {}
        for name, file, facts in files(bare, source.pipeline, rows, reference):
            scorers[name], plans[name] = scorer(file), facts
            if "fp16" not in name:
                scorers[name].precision = "int8"
                scorers[name].weights_only = bool(facts["weights_only"])
        sides = {name: agreement(reference, one) for name, one in scorers.items()}
        for name, speed in speeds(scorers, options.rounds).items():
            sides[name]["speed_of_fp32"] = speed
    for name, facts in plans.items():
        sides[name]["plan"] = facts
    report = conditions() | {"checkpoint": options.checkpoint.parent.name, "rounds": options.rounds, "sides": sides}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def files(
    bare: Path, pipeline: TextPipeline, rows: list[Any], reference: parity.Reference
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """The name of each way, its file and its plan."""
    quantizer = search._calibrated(bare, pipeline, search._watched(rows, reference))
    for name, scheme in UNIFORM.items():
        plan = QuantPlan(dict.fromkeys(quantizer.products, scheme))
        quantizer.write(bare.with_name(f"{scheme}.onnx"), plan.schemes)
        yield name, bare.with_name(f"{scheme}.onnx"), plan.facts(quantizer.products)
    only = bare.with_name("weights.onnx")
    quantizer.write(only, {}, weights_only=True)
    yield "8-bit weights only", only, WEIGHTS_ONLY.facts(quantizer.products)
    for name, static in (("what `--precision int8` picks", False), ("what `--precision int8-static` picks", True)):
        picked, facts, _ = search.int8(bare, pipeline, rows, reference, static=static)
        yield name, picked.rename(bare.with_name(f"picked.{static}.onnx")), facts
    half, facts = search.fp16(bare, pipeline, reference)
    yield "what `--precision fp16` picks, for GPUs", half, facts


def agreement(reference: parity.Reference, scorer: GraphScorer) -> dict[str, Any]:
    """The gate's figures of a file, and the limits that it passes by."""
    decisions = parity.decision_agreement(reference, scorer)
    precision = "int8" if scorer.precision == "int8" else "fp16"
    return asdict(decisions) | {"losses": parity.losses(decisions, precision)}


def speeds(scorers: dict[str, GraphScorer], rounds: int) -> dict[str, float]:
    """The speed of each file over fp32, both of the same round."""
    groups = [row.group for row in load_preferences(["sample:test"], limit=GROUPS).preferences]
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(rounds + 1):  # the first warms up
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scorer.score(groups)
            seconds[name].append(time.perf_counter() - started)
    first = seconds["fp32"][1:]
    return {name: median(a / b for a, b in zip(first, each[1:], strict=True)) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
