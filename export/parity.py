"""Agreement of an exported graph with the torch model, measured on real rows before the file is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ranker.config import ExportPrecision
from ranker.errors import ParityError
from ranker.extras import require
from ranker.metrics import accuracy, comparisons
from ranker.records import Group, Preference
from ranker.scoring.protocol import GroupScores, Scorer

FP32_LIMIT: Final = 1e-4
"""Largest difference of fp32 logits that passes."""

FP16_TAU: Final = 0.999
"""Least rank agreement of an fp16 export."""

TAU: Final = 0.98
FLIPS: Final = 0.02
ACCURACY: Final = 0.005
"""Limits of an int8 export: least rank agreement, most decisions flipped, most accuracy lost."""

SMALL: Final = 0.1
"""A decision may flip if its margin is among this share of the smallest margins."""

ROWS: Final = 160
"""Most groups of the user's data that are scored for rank agreement and flips."""


def shapes(preferences: Sequence[Preference], max_length: int) -> dict[str, list[Group]]:
    """The input shapes that are compared, built from real rows.

    Args:
        preferences: rows of the user's data; at least one.
        max_length: tokens at which the model truncates.
    """
    groups = [p.group for p in preferences[:16]]
    first = groups[0]
    words = " ".join((*first.candidates, str(first.prompt))).split() or ["word"]
    long_text = " ".join(words * (1 + max_length // len(words)))
    short = Group("Hi", ("a", "b"))
    return {
        "batch of one": [Group(first.prompt, first.candidates[:2])],
        "one candidate": [Group(first.prompt, first.candidates[:1])],
        "ragged": [Group(g.prompt, g.candidates[: 1 + i % 5]) for i, g in enumerate(groups)],
        "with padding": [short, Group(long_text[: 4 * max_length], first.candidates)],
        "longest": [Group(first.prompt, (long_text, long_text[1:]))],
        "truncated": [Group(long_text * 2, (long_text * 2, long_text))],
        "unicode": [Group("Ünïcödé 你好 🙂‍↕️?", ("", "\u0000 \u202e é́", "[SEP] <|candidate|> [CLS]"))],
        "left over": groups[: 1 + len(groups) // 3 * 2],
    }


class Reference:
    """The source model's scores of the rows and shapes, computed once for all precisions.

    Args:
        source: the torch model.
        rows: labelled rows, at least one; a seeded sample of ``ROWS`` is used.
        max_length: tokens at which the model truncates.
    """

    def __init__(self, source: Scorer, rows: Sequence[Preference], *, max_length: int) -> None:
        self.rows = random.Random(0).sample(list(rows), min(ROWS, len(rows)))
        self.shapes = shapes(self.rows, max_length)
        self.shape_results = {name: source.score(groups, preserve_order=True) for name, groups in self.shapes.items()}
        self.results = source.score([p.group for p in self.rows])


def compare(reference: Reference, exported: Scorer, measured: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure ``exported`` against ``reference``.

    Args:
        reference: the source model's scores.
        exported: the exported file.
        measured: the result of ``agreement`` for the same graph, if it is known.

    Returns:
        ``shapes``: largest logit difference per input shape; ``max_difference``; and the result of ``agreement``.
    """
    differences = {
        name: _difference(reference.shape_results[name], exported.score(groups, preserve_order=True))
        for name, groups in reference.shapes.items()
    }
    rest = agreement(reference, exported) if measured is None else measured
    return {"shapes": differences, "max_difference": max(differences.values()), **rest}


def agreement(reference: Reference, exported: Scorer) -> dict[str, Any]:
    """Measure decisions and ranks on the user's rows.

    Returns:
        ``tau_b``: mean Kendall rank agreement within groups; ``failed`` groups; ``flips``: share of comparisons whose
        winner changed; ``largest_flipped_margin`` among them, and ``small_margin``, the largest margin that may flip;
        ``accuracy_source`` and ``accuracy_exported`` on the comparisons; ``n`` comparisons.
    """
    after = exported.score([p.group for p in reference.rows])
    failed = [b.error is not None and a.error is None for a, b in zip(reference.results, after, strict=True)]
    both = [
        (row, a, b)
        for row, a, b in zip(reference.rows, reference.results, after, strict=True)
        if a.error is None and b.error is None
    ]
    rows = [row for row, _, _ in both]
    left, right = comparisons(rows, [a for _, a, _ in both]), comparisons(rows, [b for _, _, b in both])
    flipped = np.sign(left.logits) != np.sign(right.logits)
    tau = require("scipy.stats").kendalltau
    statistics = [tau(a.scores, b.scores).statistic for _, a, b in both if len(set(a.scores.tolist())) > 1]
    taus = [0.0 if np.isnan(value) else value for value in statistics]  # NaN: all exported scores are equal
    return {
        "tau_b": float(np.mean(taus)) if taus else None,
        "failed": sum(failed),
        "flips": float(flipped.mean()) if len(flipped) else 0.0,
        "largest_flipped_margin": float(np.abs(left.logits[flipped]).max(initial=0.0)),
        "small_margin": float(np.quantile(np.abs(left.logits), SMALL)) if len(left.logits) else 0.0,
        "accuracy_source": accuracy(left).value,
        "accuracy_exported": accuracy(right).value,
        "n": len(left.logits),
    }


def losses(parity: dict[str, Any], precision: ExportPrecision) -> list[str]:
    """The limits of its precision that an export fails; empty if it passes."""
    reasons = {
        f"{parity['failed']} groups could not be scored": parity["failed"] > 0,
        "NaN or infinity": not np.isfinite(parity.get("max_difference", 0.0)),
        **LIMITS[precision](parity),
    }
    return [name for name, failed in reasons.items() if failed]


def _fp32(parity: dict[str, Any]) -> dict[str, bool]:
    name, worst = max(parity["shapes"].items(), key=lambda item: item[1])
    sentence = f"shape '{name}': ONNX and torch logits differ by {worst:.2e}, limit {FP32_LIMIT:.0e}"
    return {sentence: not worst <= FP32_LIMIT}


def _fp16(parity: dict[str, Any]) -> dict[str, bool]:
    tau = parity["tau_b"]
    return {f"Kendall tau-b {tau or 0:.4f} (at least {FP16_TAU})": tau is not None and not tau >= FP16_TAU}


def _int8(parity: dict[str, Any]) -> dict[str, bool]:
    lost = parity["accuracy_source"] - parity["accuracy_exported"]
    tau = parity["tau_b"]
    flipped, small = parity["largest_flipped_margin"], parity["small_margin"]
    return {
        f"Kendall tau-b {tau or 0:.3f} (at least {TAU})": tau is not None and not tau >= TAU,
        f"{parity['flips']:.1%} of decisions flipped (less than {FLIPS:.0%})": not parity["flips"] < FLIPS,
        f"a decision with margin {flipped:.2f} flipped (margins up to {small:.2f} may, {SMALL:.0%} are)": flipped
        > small,
        f"{lost:.1%} of accuracy lost (at most {ACCURACY:.1%})": not lost <= ACCURACY,
    }


LIMITS: Final[dict[ExportPrecision, Callable[[dict[str, Any]], dict[str, bool]]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "int8-static": _int8,
}
"""The limits of each precision: from a parity table to sentences, and whether each is a reason to refuse the export."""


def check(parity: dict[str, Any], precision: ExportPrecision) -> None:
    """Refuse an export that loses too much.

    Raises:
        ParityError: naming what it loses and the limits.
    """
    lost = losses(parity, precision)
    if lost:
        way_out = "" if precision == "fp32" else ". Take fp32, or accept it with --allow-loss"
        raise ParityError(
            f"{precision} loses too much on {parity['n']} comparisons: {'; '.join(lost)}; "
            f"the file was not written{way_out}"
        )


def _difference(before: Sequence[GroupScores], after: Sequence[GroupScores]) -> float:
    pairs = zip(before, after, strict=True)
    # NaN on either side makes the result NaN, which passes no limit.
    return float(np.max([np.abs(a.scores - b.scores).max() for a, b in pairs if len(a.scores)], initial=0.0))
