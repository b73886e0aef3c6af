"""How to quantise this model: what has a scale per token and what stays fp32, by measurement on the user's rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ranker.export import parity, quantize
from ranker.models.scorer import TorchScorer
from ranker.records import Preference
from ranker.runtime.scorer import GraphScorer

CALIBRATION: Final = 64
"""Groups whose activations are watched."""

CALIBRATION_TOKENS: Final = 1024
"""Padded tokens of a watched batch; all its activations are in memory at once."""

LADDER: Final = ((0.0, 0), (0.25, 0), (0.125, 2), (0.25, 3), (1.0, 0), (1.0, 2), (1.0, 3), (1.0, 6))
"""From the fastest to the most exact: the share of activations with a scale per token, and how many stay fp32."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a graph is quantised: activations with a scale per token, and those that stay fp32."""

    per_token: tuple[str, ...]
    left: tuple[str, ...] = ()

    def facts(self, products: Mapping[str, Sequence[quantize.Product]]) -> dict[str, Any]:
        """What the parity table says of it."""

        def nodes(activations: Sequence[str]) -> list[str]:
            return [product.node.name for activation in activations for product in products[activation]]

        return {
            "weights": "per channel, GPTQ",
            "scale_per_token": nodes(self.per_token),
            "left_in_fp32": nodes(self.left),
        }


def int8(
    graph: Path, source: TorchScorer, rows: Sequence[Preference], reference: parity.Reference, *, gated: bool
) -> tuple[Path, dict[str, Any]]:
    """Quantise ``graph`` so that it passes ``parity.check_int8`` where that can be had.

    The fastest step of ``LADDER`` that passes on the reference's rows is taken, or the one that passes most limits. Its
    figures are those of the rows it was chosen on, so they flatter it a little.

    Args:
        graph: the fp32 graph.
        source: the torch model.
        rows: the user's; those that are not the reference's are watched, where there are enough.
        reference: what the torch model says of the rows that the gate measures.
        gated: whether products may stay fp32 for the sake of the gate; otherwise all become int8.

    Returns:
        The quantised graph, and the recipe's facts.
    """
    held = {id(row) for row in reference.rows}
    others = [row for row in rows if id(row) not in held]
    pool = others if len(others) >= CALIBRATION else list(rows)
    watched = [row.group for row in random.Random(1).sample(pool, min(CALIBRATION, len(pool)))]
    calibration = quantize.Calibration(graph)
    source.pipeline.score(watched, calibration, CALIBRATION_TOKENS, retry=False)
    quantizer = quantize.Quantizer(graph, calibration)
    target = graph.with_name("graph.int8.onnx")
    tried: list[tuple[tuple[int, float], Recipe]] = []
    for recipe in _recipes(quantizer, gated=gated):
        quantizer.write(target, per_token=recipe.per_token, left=recipe.left)
        table = parity.agreement(reference, GraphScorer(target, source.pipeline, device="cpu"))
        losses = parity.int8_losses(table)
        if not losses:
            return target, recipe.facts(quantizer.products)
        tried.append(((len(losses), -(table["tau_b"] or 0.0)), recipe))
    best = min(tried, key=lambda item: item[0])[1]
    quantizer.write(target, per_token=best.per_token, left=best.left)
    return target, best.facts(quantizer.products)


def _recipes(quantizer: quantize.Quantizer, *, gated: bool) -> Iterator[Recipe]:
    """The steps of ``LADDER``: what a fixed scale costs most stays fp32, what it costs next most is per token."""
    fixed = {name: quantizer.rounded(name, per_token=False).error for name in quantizer.products}
    dearest = sorted(fixed, key=lambda name: -fixed[name])
    for share, left in LADDER:
        if left < len(dearest) and (gated or not left):
            count = round(share * len(dearest))
            yield Recipe(tuple(dearest[left : left + count]), tuple(dearest[:left]))
