"""How to quantise this model: smoothing and what stays fp32, chosen by measurement on the user's rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.export import parity, quantize
from ranker.models.scorer import TorchScorer
from ranker.records import Preference
from ranker.runtime.scorer import GraphScorer
from ranker.scorer import GroupScores

CALIBRATION: Final = 64
"""Groups whose activations are watched."""

TUNING: Final = 12
"""Groups on which smoothings and layers are compared."""

SCANNED: Final = 48
"""Most activations that are tried in fp32; those of the first layers come first."""

LEFT: Final = 3
"""Most activations whose products may stay fp32."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a graph was quantised."""

    smoothing: float
    left: tuple[str, ...]

    def facts(self, products: dict[str, list[quantize.Product]]) -> dict[str, Any]:
        """What the parity table says of it."""
        names = [product.node.name for activation in self.left for product in products[activation]]
        return {"activations": "per token", "smoothing": self.smoothing, "left_in_fp32": names}


def int8(
    graph: Path, source: TorchScorer, rows: Sequence[Preference], reference: parity.Reference, *, gated: bool
) -> tuple[Path, dict[str, Any]]:
    """Quantise ``graph`` so that it passes ``parity.check_int8`` where that can be had.

    The smoothing with the smallest error on a few rows is taken; if the gate is not passed, the products whose
    quantisation costs most stay fp32, at most those of ``LEFT`` activations.

    Args:
        graph: the fp32 graph.
        source: the torch model.
        rows: the user's; those that are not the reference's are watched and tuned on, where there are enough.
        reference: what the torch model says of the rows that the gate measures.
        gated: whether products may stay fp32 for the sake of the gate; otherwise all become int8.

    Returns:
        The quantised graph, and the recipe's facts.
    """
    held = {id(row) for row in reference.rows}
    others = [row for row in rows if id(row) not in held]
    pool = others if len(others) >= CALIBRATION else list(rows)
    watched = [row.group for row in random.Random(1).sample(pool, min(CALIBRATION, len(pool)))]
    tuning = watched[:TUNING]
    truth = source.score(tuning)
    calibration = quantize.Calibration(graph)
    source.pipeline.score(watched, calibration, 4096)
    products = calibration.products
    quantizer = quantize.Quantizer(graph, products, calibration.ranges)
    target = graph.with_name("graph.int8.onnx")

    def scorer(recipe: Recipe) -> GraphScorer:
        quantizer.write(target, recipe.smoothing, left=recipe.left)
        return GraphScorer(target, source.pipeline, device="cpu")

    def error(recipe: Recipe) -> float:
        return _error(truth, scorer(recipe).score(tuning))

    best = min((Recipe(share, ()) for share in quantize.SMOOTHINGS), key=error)
    if gated:
        best = _passing(best, list(products), error, lambda recipe: parity.agreement(reference, scorer(recipe)))
    quantizer.write(target, best.smoothing, left=best.left)
    return target, best.facts(products)


def _passing(
    recipe: Recipe,
    activations: Sequence[str],
    error: Callable[[Recipe], float],
    measured: Callable[[Recipe], dict[str, Any]],
) -> Recipe:
    """The recipe with the fewest activations in fp32 that passes the gate, or the one that comes nearest."""
    table = measured(recipe)
    tried = [(table["tau_b"] or 0.0, recipe)]
    if parity.int8_losses(table):
        costs = {name: error(Recipe(recipe.smoothing, (name,))) for name in activations[:SCANNED]}
        worst = sorted(costs, key=lambda name: costs[name])  # without it the error is smallest
        for number in range(1, LEFT + 1):
            candidate = Recipe(recipe.smoothing, tuple(worst[:number]))
            table = measured(candidate)
            if not parity.int8_losses(table):
                return candidate
            tried.append((table["tau_b"] or 0.0, candidate))
    return max(tried, key=lambda item: item[0])[1]


def _error(truth: Sequence[GroupScores], found: Sequence[GroupScores]) -> float:
    """Mean square of the differences within groups; their level is no comparison's concern."""
    pairs = [(a.scores, b.scores) for a, b in zip(truth, found, strict=True) if len(a.scores) > 1]
    return float(np.mean([np.mean(((a - a.mean()) - (b - b.mean())) ** 2) for a, b in pairs])) if pairs else 0.0
