"""How a model is made smaller: what has which scales and what stays fp32, by measurement on the user's rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.errors import ExportError
from ranker.export import half, parity, quantize, storage
from ranker.export.ladder import Choice, Option, Rung, cost, ladder, wanted
from ranker.export.nodes import Product
from ranker.export.rounding import TINY, Scheme
from ranker.progress import scoring, stage, stepped
from ranker.records import Preference
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.runtime.session import int8_warning
from ranker.scoring.executor import score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Floats

CALIBRATION: Final = 64
"""Groups whose activations are watched."""

SCORED: Final = 16
"""Most groups on which the harm of each activation is measured."""

MEASURED_BYTES: Final = 512 << 20
"""Larger graphs are not written once for every activation."""

ATTEMPTS: Final = 16
"""Most plans that are tried."""

CALIBRATION_TOKENS: Final = 1024
"""Padded tokens of a watched batch; all its activations are in memory at once."""


NORMS: Final = ("LayerNormalization", "SkipLayerNormalization")

FP16_LADDER: Final = ((), NORMS, (*NORMS, "Add"))
"""Operators that stay fp32: none, norms with the sums that are a part of them, and other sums too."""


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """How a graph is quantised: the arguments of ``Quantizer.write``."""

    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    use_qdq: bool = False
    weights_only: bool = False

    def facts(self, products: Mapping[str, Sequence[Product]]) -> dict[str, Any]:
        """What the parity report says of it."""

        def nodes(scheme: Scheme | None) -> list[str]:
            names = [name for name in products if self.schemes.get(name) == scheme and not self.weights_only]
            return [product.node.name for name in names for product in products[name]]

        return {
            "weights": "by block, rounded to the nearest" if self.weights_only else "per channel, GPTQ",
            "outlier_channels": nodes("outliers"),
            "scale_per_token": nodes("token"),
            "weights_only": self.weights_only,
            "keep_fp32": nodes(None),
        }


WEIGHTS_ONLY: Final = QuantPlan(weights_only=True)


def fp16(
    graph: Path, pipeline: TextPipeline, reference: parity.Reference, *, key_lengths: bool = False
) -> tuple[Path, dict[str, Any]]:
    """An fp16 copy of ``graph`` with as few operators in fp32 as its gate allows, and the plan's facts."""
    for kept in FP16_LADDER:
        target = half.fp16(graph, kept, key_lengths=key_lengths)
        decisions = parity.decision_agreement(reference, _on_cpu(target, pipeline))
        if not parity.losses(decisions, "fp16"):
            break
    return target, {"kept_in_fp32": list(kept), "key_lengths": key_lengths}


def int8(
    graph: Path,
    pipeline: TextPipeline,
    rows: Sequence[Preference],
    reference: parity.Reference,
    *,
    static: bool = False,
) -> tuple[Path, dict[str, Any], parity.DecisionAgreement | None]:
    """Quantise ``graph`` so that it passes its gate (``parity.check``) where that can be had.

    The first plan that passes on the reference's rows is taken, or the one that passes most limits. On
    processors without 8-bit dot products, and of graphs whose weights lie beside them, only the weights become int8.
    Its figures are those of the rows it was chosen on, so they flatter it a little.

    Args:
        graph: the fp32 graph.
        pipeline: how the model reads a group.
        rows: the user's; those that are not the reference's are watched, where there are enough.
        reference: what the torch model says of the rows that the gate measures.
        static: whether all scales are fixed, and quantised and dequantised in ONNX's own nodes.

    Returns:
        The quantised graph, the plan's facts, and the decisions that were measured of the graph if it passed.
    """
    if storage.is_large(graph):
        if static:
            raise ExportError("int8-static: a model beyond 2 GB is exported in int8, with 8-bit weights; choose int8")
        quantizer, rungs = quantize.Quantizer(graph, None), []
    else:
        watched = _watched(rows, reference)
        quantizer = _calibrated(graph, pipeline, watched)
        rungs = _rungs(quantizer, static, partial(_harm, graph, pipeline, quantizer, watched))
    target = graph.with_name("graph.int8.onnx")
    plans = _Plans(rungs, static)
    tried: list[tuple[tuple[int, float], QuantPlan]] = []
    with stage("int8: looking for the fastest that keeps ranks", None, unit="attempts") as attempts:
        for plan in plans:
            quantizer.write(target, plan.schemes, use_qdq=plan.use_qdq, weights_only=plan.weights_only)
            decisions = parity.decision_agreement(reference, _on_cpu(target, pipeline, plan))
            losses = parity.losses(decisions, "int8")
            attempts.note(tau=f"{decisions.tau_b or 0.0:.4f}")
            attempts.advance()
            if not losses:
                return target, plan.facts(quantizer.products), decisions
            plans.tau = decisions.tau_b
            tried.append(((len(losses), -(decisions.tau_b or 0.0)), plan))
    best = min(tried, key=lambda item: item[0])[1]
    if len(tried) > 1:
        quantizer.write(target, best.schemes, use_qdq=best.use_qdq, weights_only=best.weights_only)
    return target, best.facts(quantizer.products), None


def _watched(rows: Sequence[Preference], reference: parity.Reference) -> list[Preference]:
    """Rows whose activations are watched, by preference others than the gate's."""
    held = {id(row) for row in reference.rows}
    others = [row for row in rows if id(row) not in held]
    pool = others if len(others) >= CALIBRATION else list(rows)
    return random.Random(1).sample(pool, min(CALIBRATION, len(pool)))


def _calibrated(graph: Path, pipeline: TextPipeline, watched: Sequence[Preference]) -> quantize.Quantizer:
    """A quantiser that has seen activations."""
    calibration = quantize.Calibration(graph)
    with scoring("int8: watching activations", len(watched)):
        score_groups(pipeline, [row.group for row in watched], calibration, CALIBRATION_TOKENS, retry=False)
    return quantize.Quantizer(graph, calibration)


def _harm(
    graph: Path, pipeline: TextPipeline, quantizer: quantize.Quantizer, watched: Sequence[Preference]
) -> dict[str, float]:
    """What each activation's fixed scale does to the scores while all others stay fp32: a mean change, squared.

    The error of a product says little of that: the same relative error changes the scores up to a hundred times as much
    in an early product as in a late one. For graphs beyond ``MEASURED_BYTES``, which take long to write, and where no
    answer can be scored, it is taken all the same.
    """
    local = {name: quantizer.rounded(name, "fixed").error for name in quantizer.products}
    if graph.stat().st_size > MEASURED_BYTES:
        return local
    weights = sum(product.weights.size for group in quantizer.products.values() for product in group)
    rows = parity.within(pipeline, watched[:SCORED], int(parity.COST / weights / len(quantizer.products)))
    groups = [row.group for row in rows]
    alone = all(len(group.candidates) == 1 for group in groups)

    def scores(file: Path) -> list[Floats]:
        results = [result.scores.ravel() for result in _on_cpu(file, pipeline).score(groups)]
        return [np.concatenate(results)] if alone else results

    target, before = graph.with_name("graph.one.onnx"), scores(graph)
    harm: dict[str, float] = {}
    for name in stepped([*quantizer.products], "int8: what each product does to the scores", unit="activations"):
        quantizer.write(target, {name: "fixed"})
        harm[name] = _change(before, scores(target))
    target.unlink()
    return harm if any(harm.values()) else local


def _change(before: Sequence[Floats], after: Sequence[Floats]) -> float:
    """The mean change of the scores of groups, squared, but for one that all scores of a group share.

    Answers that could not be scored before say nothing; where one cannot be scored after, the change is infinite.
    """
    changes = []
    for old, new in zip(before, after, strict=True):
        known = np.isfinite(old)
        if not np.isfinite(new[known]).all():
            return float("inf")
        changes.append(new[known] - old[known])
    centred = np.concatenate([change - change.mean() for change in changes if len(change)] or [np.zeros(1)])
    return float(np.abs(centred).mean()) ** 2


def _on_cpu(graph: Path, pipeline: TextPipeline, plan: QuantPlan | None = None) -> GraphScorer:
    """A scorer that batches as that of the finished file does; without a plan, of an fp32 or fp16 graph."""
    scorer = GraphScorer(graph, pipeline.layout, pipeline.tokenizer, device="cpu", large=storage.is_large(graph))
    if plan is not None:
        scorer.precision, scorer.weights_only = "int8", plan.weights_only
    return scorer


class _Plans:
    """The plans to try, in order: ``ATTEMPTS`` of the ladder, then 8-bit weights only (but of static ones).

    Set ``tau`` after each one that did not pass; the next one depends on it.
    """

    def __init__(self, rungs: Sequence[Rung], static: bool) -> None:
        self.rungs, self.static = rungs, static
        self.tau: float | None = None

    def __iter__(self) -> Iterator[QuantPlan]:
        rung = 0 if self.rungs else None
        for _ in range(ATTEMPTS):
            if rung is None:
                break
            yield QuantPlan(self.rungs[rung].schemes, use_qdq=self.static)
            rung = wanted(self.rungs, rung, 1.0 if self.tau is None else self.tau, parity.TAU)
        if not self.static:
            yield WEIGHTS_ONLY


def _rungs(quantizer: quantize.Quantizer, static: bool, harm: Callable[[], Mapping[str, float]]) -> list[Rung]:
    """Plans from the fastest to the most exact; none where 8-bit weights alone are the fastest."""
    if not static and int8_warning() is not None:
        return []  # without 8-bit dot products nothing else is as fast, and 8-bit products saturate
    schemes: tuple[Scheme, ...] = ("fixed", "outliers") if static else ("fixed", "outliers", "token")
    estimates: dict[str, dict[Scheme, float]] = {}
    for name in stepped([*quantizer.products], "int8: rounding weights", unit="activations"):
        rounder = quantizer.rounder(name)
        estimates[name] = {scheme: rounder.estimate(scheme) for scheme in schemes}
        quantizer.rounded(name, "fixed", rounder)
    measured = harm()
    choices = []
    for name, errors in estimates.items():
        products = quantizer.products[name]
        inputs, outputs = len(products[0].weights), sum(product.weights.shape[1] for product in products)
        options: dict[Scheme | None, Option] = {None: Option(0.0, cost(None, inputs, outputs))}
        for scheme, error in errors.items():
            share = error / max(errors["fixed"], float(TINY))
            options[scheme] = Option(share * measured[name], cost(scheme, inputs, outputs))
        choices.append(Choice(name, inputs * outputs, options))
    return list(ladder(choices))
