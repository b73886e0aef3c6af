"""Does the exported graph say what the torch model says? Measured on real rows before a file is handed out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from ranker.config import ExportPrecision
from ranker.errors import ParityError
from ranker.extras import require
from ranker.metrics import accuracy, comparisons
from ranker.models.torch_scorer import TorchScorer
from ranker.progress import scoring, stepped
from ranker.records import Group, Preference
from ranker.scoring.buckets import text_of_length
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Floats, GroupScores, Scorer

FP32_LIMIT: Final = 1e-4
"""Largest difference of fp32 logits that passes, times the spread of the scores where that is above 1."""

FP16_TAU: Final = 0.999
"""Least rank agreement of an fp16 export, but for answers whose scores are ties in fp16."""

HALF_STEP: Final = 2.0**-10
"""The step between fp16 numbers, as a share of their size."""

TAU: Final = 0.98
FLIPS: Final = 0.02
ACCURACY: Final = 0.005
"""Limits of an int8 export: least rank agreement, most decisions flipped, most accuracy lost."""

SMALL: Final = 0.1
"""A decision may flip where its margin is among this share of the smallest."""

ROWS: Final = 160
"""Groups of the user's data that are scored for rank agreement and flips."""

LEAST_ROWS: Final = 4
LEAST_LENGTH: Final = 256
MOST_LENGTH: Final = 2048
COST: Final = 6e12
"""Weights times tokens that a model may cost to measure, about two minutes on two cores; fewer rows and shorter
texts are taken of larger models, down to ``LEAST_ROWS`` and ``LEAST_LENGTH`` tokens. No text is longer than
``MOST_LENGTH`` tokens: attention on a CPU holds all pairs of tokens of a row."""

BLOCK: Final = 16
"""Single answers whose order is compared together, of rows that hold no comparison."""

SAMPLE: Final = "the built-in sample (give your own rows with --data)"
"""What an export is measured on where no rows are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionAgreement:
    """How far the decisions and ranks of an exported graph are those of its source model, on the user's rows.

    Attributes:
        tau_b: mean Kendall rank agreement within groups, between -1 and 1; None where no group has two scores.
        failed: groups that the source model could score and the graph could not.
        flips: share of the comparisons whose winner changed.
        largest_flipped_margin: the largest margin in logits of a comparison whose winner changed.
        small_margin: the margin in logits up to which a winner may change.
        accuracy_source: accuracy of the source model on the comparisons; NaN without comparisons.
        accuracy_exported: accuracy of the graph on them.
        n: number of comparisons.
        largest_swapped_margin: the largest margin in logits of two answers of a group whose order changed.
        resolution: the step between fp16 numbers of the size of the largest score.
    """

    tau_b: float | None
    failed: int
    flips: float
    largest_flipped_margin: float
    small_margin: float
    accuracy_source: float
    accuracy_exported: float
    n: int
    largest_swapped_margin: float = 0.0
    resolution: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport(DecisionAgreement):
    """An exported file measured against its source model; it is stored in the file's manifest.

    Attributes:
        data: what the rows are called.
        shapes: the largest difference of logits per input shape.
        max_difference: the largest of ``shapes``; NaN where a score is NaN.
        spread: the largest score of the source model less the smallest, in logits.
        quantization: which operators and weights have which precision; None for fp32.
        cuda: the same figures measured on CUDA, where the export ran beside a GPU.

    Example:
        >>> report = ranker.export_onnx("checkpoint", "again.onnx", rows="data/rows.jsonl")
        >>> report.flips, report.n > 100
        (0.0, True)
        >>> print(report)
        measured on                   data/rows.jsonl
        max difference, batch of one  ...
    """

    data: str
    shapes: Mapping[str, float]
    max_difference: float
    spread: float
    quantization: Mapping[str, Any] | None = None
    cuda: Mapping[str, float | None] | None = None

    def on_card(self) -> dict[str, float | None]:
        """The main figures, for ``cuda`` of the report that goes into the file."""
        names = ("max_difference", "tau_b", "flips", "largest_flipped_margin")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the manifest; without ``quantization`` for fp32."""
        names = ("data", "shapes", "max_difference", "spread", *DecisionAgreement.__dataclass_fields__, "quantization")
        values = asdict(self)
        known = {name: values[name] for name in names if name != "quantization" or self.quantization is not None}
        return known | ({} if self.cuda is None else {"cuda": dict(self.cuda)})

    def rows(self) -> list[tuple[str, str]]:
        """The main numbers as (name, text) rows; differences and margins are in logits.

        Accuracy is left out on the built-in sample: it says nothing about the model.
        """
        rows = [
            ("measured on", self.data),
            *((f"max difference, {name}", f"{value:.1e}") for name, value in self.shapes.items()),
            ("Kendall tau-b", "undefined" if self.tau_b is None else f"{self.tau_b:.4f}"),
            ("decision flips", f"{self.flips:.4f} (n={self.n})"),
            ("largest flipped margin", f"{self.largest_flipped_margin:.3f}"),
        ]
        if self.cuda is not None:
            rows.append(("max difference, on CUDA", f"{self.cuda['max_difference']:.1e}"))
        if self.data != SAMPLE:
            rows.append(("accuracy, torch / exported", f"{self.accuracy_source:.4f} / {self.accuracy_exported:.4f}"))
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def shapes(groups: Sequence[Group], long_text: str) -> dict[str, list[Group]]:
    """The input shapes that are compared, built from real rows.

    Args:
        groups: of the user's data; at least one.
        long_text: fills a row.
    """
    first = groups[0]
    short = Group("Hi", ("a", "b"))
    return {
        "batch of one": [Group(first.prompt, first.candidates[:2])],
        "one candidate": [Group(first.prompt, first.candidates[:1])],
        "ragged": [Group(g.prompt, g.candidates[: 1 + i % 5]) for i, g in enumerate(groups)],
        "with padding": [short, Group(long_text, first.candidates[:3])],
        "longest": [Group(first.prompt, (long_text, long_text[1:]))],
        "truncated": [Group(long_text, (long_text, long_text[: len(long_text) // 2]))],
        "unicode": [Group("Ünïcödé 你好 🙂‍↕️?", ("", "\u0000 \u202e é́", "<|candidate|> \ufeff"))],
        "left over": list(groups[: 1 + len(groups) // 3 * 2]),
    }


class Reference:
    """What the source model says of the rows and shapes, computed once for all precisions.

    Args:
        source: the torch model.
        rows: labelled rows, at least one; a seeded sample of ``ROWS`` is used, or less of it where that costs too much.
        max_length: tokens at which the model truncates.
        weights: the model's weights that a token is multiplied by, which decide what a row costs.
    """

    def __init__(self, source: TorchScorer, rows: Sequence[Preference], *, max_length: int, weights: int = 0) -> None:
        tokens = int(COST / max(weights, 1))
        sample = random.Random(0).sample(list(rows), min(ROWS, len(rows)))
        self.rows = within(source.pipeline, sample, tokens // 2)
        groups = [row.group for row in within(source.pipeline, self.rows[:16], tokens // 8)]
        longest = min(max_length, MOST_LENGTH, max(LEAST_LENGTH, tokens // 40))
        self.shapes = shapes(groups, text_of(source, groups[0], longest))
        self.shape_results = {
            name: source.score(self.shapes[name], preserve_order=True)
            for name in stepped([*self.shapes], "input shapes, by torch", unit="shapes")
        }
        with scoring("rows to compare, by torch", len(self.rows)):
            self.results = source.score([p.group for p in self.rows])
        alone = all(len(row.candidates) == 1 for row in self.rows)
        self.single_answers = alone and not source.info.scores_are_relative
        scores = [r.scores for results in (self.results, *self.shape_results.values()) for r in results]
        finite = np.concatenate([np.zeros(0, np.float32), *scores])
        finite = finite[np.isfinite(finite)]
        self.spread = float(np.ptp(finite)) if len(finite) else 0.0


def text_of(source: Scorer, group: Group, tokens: int) -> str:
    """A text of about this many tokens, of the words of a group."""
    words = " ".join((*group.candidates, str(group.prompt))).split() or ["word"]
    return text_of_length(source, " ".join([*words, ""]), tokens)


def within(pipeline: TextPipeline, rows: Sequence[Preference], tokens: int) -> list[Preference]:
    """The first rows that hold this many tokens together as the model reads them, ``LEAST_ROWS`` at the least."""
    totals = np.cumsum([pipeline.padded_tokens(ids) for ids in pipeline.tokenize([row.group for row in rows])])
    return list(rows[: max(LEAST_ROWS, int((totals <= tokens).sum()))])


def compare(
    reference: Reference,
    exported: Scorer,
    *,
    data: str = "",
    decisions: DecisionAgreement | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Measure ``exported`` against ``reference``.

    Args:
        reference: the source model's scores.
        exported: the exported file.
        data: what the rows are called in the report.
        decisions: what ``decision_agreement`` has measured of the same graph already.
        quantization: the plan by which the graph was made smaller.
    """
    differences = {
        name: _difference(reference.shape_results[name], exported.score(reference.shapes[name], preserve_order=True))
        for name in stepped([*reference.shapes], "input shapes, by the file", unit="shapes")
    }
    return ParityReport(
        data=data,
        shapes=differences,
        max_difference=float(np.max(list(differences.values()))),  # NaN where one is, which passes no limit
        spread=reference.spread,
        quantization=quantization,
        **asdict(decisions or decision_agreement(reference, exported)),
    )


def decision_agreement(reference: Reference, exported: Scorer) -> DecisionAgreement:
    """Measure decisions and ranks of ``exported`` on the reference's rows."""
    with scoring("rows to compare, by the file", len(reference.rows)):
        after = exported.score([p.group for p in reference.rows])
    failed = [b.error is not None and a.error is None for a, b in zip(reference.results, after, strict=True)]
    both = [
        (row, a, b)
        for row, a, b in zip(reference.rows, reference.results, after, strict=True)
        if a.error is None and b.error is None
    ]
    if reference.single_answers:
        both = [_joined(both[start : start + BLOCK]) for start in range(0, len(both), BLOCK)]
    rows = [row for row, _, _ in both]
    left, right = comparisons(rows, [a for _, a, _ in both]), comparisons(rows, [b for _, _, b in both])
    flipped = np.sign(left.logits) != np.sign(right.logits)
    kendall = require("scipy.stats").kendalltau
    taus = [kendall(a.scores, b.scores).statistic for _, a, b in both if len(set(a.scores.tolist())) > 1]
    taus = [0.0 if np.isnan(tau) else tau for tau in taus]  # scores that were told apart and are all the same now
    return DecisionAgreement(
        tau_b=float(np.mean(taus)) if taus else None,
        failed=sum(failed),
        flips=float(flipped.mean()) if len(flipped) else 0.0,
        largest_flipped_margin=float(np.abs(left.logits[flipped]).max(initial=0.0)),
        small_margin=float(np.quantile(np.abs(left.logits), SMALL)) if len(left.logits) else 0.0,
        accuracy_source=accuracy(left).value,
        accuracy_exported=accuracy(right).value,
        n=len(left.logits),
        largest_swapped_margin=max((_swapped(a.scores, b.scores) for _, a, b in both), default=0.0),
        resolution=HALF_STEP * max((float(np.abs(a.scores).max(initial=0.0)) for _, a, _ in both), default=0.0),
    )


Scored = tuple[Preference, GroupScores, GroupScores]


def _joined(part: Sequence[Scored]) -> Scored:
    """Single answers as one list: their labels and scores mean the same whatever they answer."""
    row = part[0][0]
    rows = [preference for preference, _, _ in part]
    merged = replace(
        row,
        candidates=tuple(candidate for preference in rows for candidate in preference.candidates),
        scores=tuple(scores for preference in rows for scores in preference.scores),
        spans=(),
    )
    return merged, _joined_scores([before for _, before, _ in part]), _joined_scores([after for _, _, after in part])


def _joined_scores(results: Sequence[GroupScores]) -> GroupScores:
    return GroupScores(np.concatenate([r.scores for r in results]), np.concatenate([r.truncated for r in results]))


def _swapped(before: Floats, after: Floats) -> float:
    """The largest difference between two scores whose order changed."""
    margins = before[:, None] - before
    changed = np.sign(margins) != np.sign(after[:, None] - after)
    return float(np.abs(margins[changed]).max(initial=0.0))


def losses(decisions: DecisionAgreement, precision: ExportPrecision) -> list[str]:
    """What decisions and ranks lose beyond the limits of a precision; empty where they pass."""
    reasons = {f"{decisions.failed} groups could not be scored": decisions.failed > 0, **LIMITS[precision](decisions)}
    return [reason for reason, applies in reasons.items() if applies]


def _shape_losses(report: ParityReport, precision: ExportPrecision) -> list[str]:
    """What the input shapes lose: logits that are not finite, and in fp32 logits that differ."""
    reasons = [] if np.isfinite(report.max_difference) else ["NaN or infinity"]
    name, worst = max(report.shapes.items(), key=lambda item: item[1], default=("", 0.0))
    limit = FP32_LIMIT * max(1.0, report.spread)
    if precision == "fp32" and not worst <= limit:
        reasons.append(
            f"shape '{name}': ONNX and torch logits differ by {worst:.2e}, limit {limit:.0e} (scores spread over "
            f"{report.spread:.1f})"
        )
    return reasons


def _fp32(decisions: DecisionAgreement) -> dict[str, bool]:
    return {}


def _fp16(decisions: DecisionAgreement) -> dict[str, bool]:
    tau = decisions.tau_b
    ties = 0 < decisions.largest_swapped_margin <= decisions.resolution  # in fp16, of which no order can be asked
    return {f"Kendall tau-b {tau or 0:.4f} (at least {FP16_TAU})": tau is not None and not tau >= FP16_TAU and not ties}


def _int8(decisions: DecisionAgreement) -> dict[str, bool]:
    lost = decisions.accuracy_source - decisions.accuracy_exported
    tau = decisions.tau_b
    flipped, small = decisions.largest_flipped_margin, decisions.small_margin
    return {
        f"Kendall tau-b {tau or 0:.3f} (at least {TAU})": tau is not None and not tau >= TAU,
        f"{decisions.flips:.1%} of decisions flipped (less than {FLIPS:.0%})": not decisions.flips < FLIPS,
        f"a decision with margin {flipped:.2f} flipped (margins up to {small:.2f} may, {SMALL:.0%} are)": flipped
        > small,
        f"{lost:.1%} of accuracy lost (at most {ACCURACY:.1%})": not lost <= ACCURACY,
    }


LIMITS: Final[dict[ExportPrecision, Callable[[DecisionAgreement], dict[str, bool]]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "int8-static": _int8,
}
"""What decisions may lose in each precision: sentences, and whether each is a reason to refuse the export."""


def check(report: ParityReport, precision: ExportPrecision) -> None:
    """Refuse an export that loses too much.

    Raises:
        ParityError: naming what it loses and the limits.
    """
    lost = [*_shape_losses(report, precision), *losses(report, precision)]
    if lost:
        way_out = "" if precision == "fp32" else ". Take fp32, or accept it with --allow-loss"
        raise ParityError(
            f"{precision} loses too much on {report.n} comparisons: {'; '.join(lost)}; "
            f"the file was not written{way_out}"
        )


def _difference(before: Sequence[GroupScores], after: Sequence[GroupScores]) -> float:
    # A group that both refuse, as a chat template does, has no scores; NaN on one side passes no limit.
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a.error is None or b.error is None]
    return float(np.max([np.abs(a.scores - b.scores).max() for a, b in pairs if len(a.scores)], initial=0.0))
