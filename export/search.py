"""How a model is made smaller: what has which scales and what stays fp32, by measurement on the user's rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ranker.errors import ExportError
from ranker.export import half, parity, quantize, storage
from ranker.export.nodes import Product
from ranker.progress import scoring, stage, stepped
from ranker.records import Preference
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.runtime.session import int8_warning
from ranker.scoring.executor import score_groups
from ranker.scoring.pipeline import TextPipeline

CALIBRATION: Final = 64
"""Groups whose activations are watched."""

CALIBRATION_TOKENS: Final = 1024
"""Padded tokens of a watched batch; all its activations are in memory at once."""

ALL: Final = 10_000

LADDER: Final = (
    (0.0, 0),
    (0.25, 0),
    (0.0, 2),
    (0.25, 2),
    (0.0, 4),
    (0.25, 4),
    (1.0, 0),
    (1.0, 2),
    (1.0, 4),
    (1.0, 6),
    (0.0, ALL),
)
"""From the fastest to the most exact: the share of activations with a scale per token, and how many have scales by
block, which are a fifth faster than fp32. Weights only, which come last, lose least and are no faster."""

STATIC_LADDER: Final = (0, 1, 2, 3, 4, 6, 8, 12)
"""How many activations' products stay fp32, a quarter at most, where all others have fixed scales."""


NORMS: Final = ("LayerNormalization", "SkipLayerNormalization")

FP16_LADDER: Final = ((), NORMS, (*NORMS, "Add"))
"""Operators that stay fp32: none, norms with the sums that are a part of them, and other sums too."""


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """How a graph is quantised: activations with a scale per token, with scales by block, and those that stay fp32."""

    per_token: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    keep_fp32: tuple[str, ...] = ()
    use_qdq: bool = False
    weights_only: bool = False

    def facts(self, products: Mapping[str, Sequence[Product]]) -> dict[str, Any]:
        """What the parity report says of it."""

        def nodes(activations: Sequence[str]) -> list[str]:
            return [product.node.name for activation in activations for product in products[activation]]

        return {
            "weights": "per channel, GPTQ; by block, rounded to the nearest, where scale_per_block says so",
            "scale_per_token": nodes(self.per_token),
            "scale_per_block": nodes(self.blocks),
            "weights_only": self.weights_only,
            "keep_fp32": nodes(self.keep_fp32),
        }


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

    The first step of the ladder that passes on the reference's rows is taken, or the one that passes most limits. On
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
        quantizer, plans = quantize.Quantizer(graph, None), iter([_weights_only(quantize.products(graph))])
    else:
        quantizer = _calibrated(graph, pipeline, rows, reference)
        plans = _plans(quantizer, static)
    target = graph.with_name("graph.int8.onnx")
    tried: list[tuple[tuple[int, float], QuantPlan]] = []
    with stage("int8: looking for the fastest that keeps ranks", None, unit="attempts") as attempts:
        for plan in plans:
            quantizer.write(target, **asdict(plan))
            decisions = parity.decision_agreement(reference, _on_cpu(target, pipeline))
            losses = parity.losses(decisions, "int8")
            attempts.note(tau=f"{decisions.tau_b or 0.0:.4f}")
            attempts.advance()
            if not losses:
                return target, plan.facts(quantizer.products), decisions
            tried.append(((len(losses), -(decisions.tau_b or 0.0)), plan))
    best = min(tried, key=lambda item: item[0])[1]
    if len(tried) > 1:
        quantizer.write(target, **asdict(best))
    return target, best.facts(quantizer.products), None


def _calibrated(
    graph: Path, pipeline: TextPipeline, rows: Sequence[Preference], reference: parity.Reference
) -> quantize.Quantizer:
    """A quantiser that has seen activations of rows, by preference of others than the gate's."""
    held = {id(row) for row in reference.rows}
    others = [row for row in rows if id(row) not in held]
    pool = others if len(others) >= CALIBRATION else list(rows)
    watched = [row.group for row in random.Random(1).sample(pool, min(CALIBRATION, len(pool)))]
    calibration = quantize.Calibration(graph)
    with scoring("int8: watching activations", len(watched)):
        score_groups(pipeline, watched, calibration, CALIBRATION_TOKENS, retry=False)
    return quantize.Quantizer(graph, calibration)


def _on_cpu(graph: Path, pipeline: TextPipeline) -> GraphScorer:
    large = storage.is_large(graph)
    return GraphScorer(graph, pipeline.layout, pipeline.tokenizer, device="cpu", large=large)


def _weights_only(products: Mapping[str, Sequence[Product]]) -> QuantPlan:
    return QuantPlan(blocks=tuple(products), weights_only=True)


def _plans(quantizer: quantize.Quantizer, static: bool) -> Iterator[QuantPlan]:
    """The steps of the ladder: what a fixed scale costs most has scales by block, what it costs next most per token."""
    weights_only = _weights_only(quantizer.products)
    if not static and int8_warning() is not None:
        yield weights_only  # without 8-bit dot products nothing else is as fast, and 8-bit products saturate
        return
    fixed = {
        name: quantizer.rounded(name, per_token=False).error
        for name in stepped([*quantizer.products], "int8: rounding weights", unit="activations")
    }
    costliest = sorted(fixed, key=lambda name: -fixed[name])
    if static:
        yield from (
            QuantPlan(keep_fp32=tuple(costliest[:n]), use_qdq=True) for n in STATIC_LADDER if 4 * n <= len(costliest)
        )
        return
    for share, blocks in LADDER:
        if blocks < len(costliest) or blocks == ALL:
            count = round(share * len(costliest))
            yield QuantPlan(tuple(costliest[blocks : blocks + count]), tuple(costliest[:blocks]))
    yield weights_only
