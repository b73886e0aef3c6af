"""A report's main numbers as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from ranker.evaluation.model_report import ModelReport
from ranker.evaluation.statistics.calibration import Temperature
from ranker.evaluation.statistics.length import LengthBias
from ranker.evaluation.statistics.paired import Paired
from ranker.evaluation.statistics.regression import Regression
from ranker.metrics import Estimate, Share
from ranker.scoring.distinct import ReadCount

Rows = Sequence[tuple[str, str]]
"""A table of two columns: names and texts."""


def plain_text(title: str, rows: Rows) -> str:
    """A table as lines of text under its title."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def compared(result: Paired | None, first: str, second: str) -> str:
    """A difference in accuracy with its interval, how often only one of the models was right, and the exact test."""
    if result is None:
        return "no comparison in common"
    return (
        f"{result.difference}; only {first} right: {result.first_only}, only {second} right: {result.second_only}, "
        f"McNemar p = {result.p_value:.2g}{f', {second} is significantly worse' if result.worse else ''}"
    )


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong together, and what they say."""

    title: str
    explanation: str
    rows: Rows


def headline(report: ModelReport) -> list[tuple[str, str]]:
    """All figures of the report as (name, text) rows."""
    return [row for section in sections(report) for row in section.rows]


def sentence(report: ModelReport) -> str:
    """What the report says, in a sentence or two."""
    if report.regression is not None:
        figures = report.regression
        return (
            f"Scores and labels of {figures.n} answers have a Spearman correlation of {_interval(figures.spearman)} "
            f"and a root-mean-square error of {_interval(figures.rmse)} (95 % intervals)."
        )
    if not report.accuracy.n:
        return "The rows hold no decided comparison."
    text = (
        f"The model prefers the right answer in {_percent(report.accuracy)} of {report.accuracy.n} comparisons of "
        f"{report.prompts} prompts (95 % interval)."
    )
    best = best_baseline(report)
    if best is None:
        return text
    name, figure = best
    return f"{text} The best simple baseline ({name}) reaches {_percent(figure)}."


def best_baseline(report: ModelReport) -> tuple[str, Share] | None:
    """The rule with the best accuracy, by its name in words; None where none was measured. A coin is no rule."""
    rules = [(name, b.accuracy) for name, b in report.baselines.items() if b.accuracy.n and name != "random"]
    known = [(name.replace("_", " "), accuracy) for name, accuracy in rules]
    return max(known, key=lambda item: item[1].value, default=None)


def worst_kinds(report: ModelReport, most: int = 3) -> list[tuple[str, Share]]:
    """The kinds of comparisons (or subsets, where rows have no kinds) with the lowest accuracy."""
    shares = report.kinds if len(report.kinds) > 1 else report.subsets if len(report.subsets) > 1 else {}
    return sorted(shares.items(), key=lambda item: item[1].value)[:most]


def sections(report: ModelReport) -> list[Section]:
    """All figures in groups; those that were measured on nothing are left out."""
    if report.regression is not None:
        return [Section("Scores and labels", LABELS, _regression_rows(report, report.regression))]
    edits = [
        (f"edited to {name}: wins", f"{effect.wins}, lead {effect.shift.value:+.2f} logits")
        for name, effect in report.robustness.items()
    ]
    each = [
        Section("Accuracy", ACCURACY, _accuracy_rows(report)),
        Section("Order", ORDER, _order_rows(report)),
        Section("Probabilities", PROBABILITIES, _probability_rows(report)),
        Section("Length", LENGTH, _length_rows(report.length_bias)),
        Section("Lists of answers", LISTS, _list_rows(report)),
        Section("Edited answers", EDITS, edits),
        Section("Subsets", SUBSETS, _shares("subset", report.subsets)),
        Section("Kinds of answers", KINDS, _shares("kind", report.kinds)),
    ]
    return [section for section in each if section.rows]


ACCURACY: Final = (
    "The share of comparisons in which the preferred answer has the higher score; a tie counts half. The indented rows "
    "are rules that understand nothing."
)
ORDER: Final = (
    "Order flips are pairs whose winner changes when the answers change places. A cyclic triad is three answers of "
    "which each beats the next. Both should be 0."
)
PROBABILITIES: Final = (
    "Whether a margin of two logits means the odds that it says. Lower is better for log-loss, Brier score and "
    "calibration error. A temperature of 1 needs no correction."
)
LENGTH: Final = "Whether longer answers win because they are longer. The accuracies should be alike."
LISTS: Final = (
    "Agreement with the labelled order of three or more answers, and the label of the answer that the model chooses "
    "among n, beside the best one that was there and any one."
)
EDITS: Final = (
    "The share of preferred answers that score higher after an edit. It should be 0 for edits that remove content, and "
    "is a weakness near 1 for the others."
)
SUBSETS: Final = "Accuracy by the subset that the rows name."
KINDS: Final = "Accuracy by the kinds of the two answers that the rows name, the better one first."
LABELS: Final = "How well the scores order and hit the labels of single answers."


def _interval(estimate: Estimate) -> str:
    interval = "" if isnan(estimate.low) else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.value:.3f}{interval}"


def _percent(share: Estimate) -> str:
    interval = "" if isnan(share.low) else f" ({share.low:.1%} to {share.high:.1%})"
    return f"{share.value:.1%}{interval}"


def _accuracy_rows(report: ModelReport) -> list[tuple[str, str]]:
    rows = [
        ("comparisons, prompts", f"{report.comparisons} of {report.prompts} prompts"),
        *_read_rows(ReadCount(report.answers, report.answers_read)),
        ("accuracy", str(report.accuracy)),
        *((f"  {name.replace('_', ' ')}", str(b.accuracy)) for name, b in report.baselines.items() if b.accuracy.n),
        ("mean margin (logits)", str(report.mean_margin)),
        ("ties predicted", str(report.ties)),
        ("labels tied", str(report.labelled_ties)),
    ]
    rows += [("rows that failed", str(report.failed))] if report.failed else []
    return rows


def _order_rows(report: ModelReport) -> list[tuple[str, str]]:
    swap = report.label_swap
    rows = [(name, str(share)) for name, share in (("order flips", report.order_flips),) if share.n]
    rows += [("cyclic triads", str(report.cyclic_triads))] if report.cyclic_triads.n else []
    if swap.n and abs(swap.accuracy - swap.expected) > SWAP_LIMIT:
        text = f"{swap.accuracy:.3f}, expected {swap.expected:.3f}: the score depends on an answer's place"
        rows.append(("accuracy of answers in reverse, under the same labels", text))
    return rows


SWAP_LIMIT: Final = 0.02
"""Difference in accuracy from which the label-swap check is worth a row."""


def _probability_rows(report: ModelReport) -> list[tuple[str, str]]:
    rows = [("log-loss (nats)", report.log_loss), ("Brier score", report.brier)]
    rows.append(("calibration error", report.calibration.error))
    known = [(name, str(estimate)) for name, estimate in rows if estimate.n]
    return [*known, *_temperature_row(report.calibration.temperature)]


def _shares(name: str, shares: Mapping[str, Share]) -> list[tuple[str, str]]:
    return [(f"{name}: {key}", str(share)) for key, share in shares.items()] if len(shares) > 1 else []


def _regression_rows(report: ModelReport, figures: Regression) -> list[tuple[str, str]]:
    """The rows of single answers, which hold no comparison."""
    return [
        ("answers with a label", str(figures.n)),
        *_read_rows(ReadCount(report.answers, report.answers_read)),
        ("Spearman of score and label", str(figures.spearman)),
        ("  of length and label", f"{figures.length_spearman:.3f}"),
        ("RMSE (units of the label)", str(figures.rmse)),
        ("  of the labels' mean", f"{figures.mean_rmse:.3f}"),
        ("rows that failed", str(report.failed)),
    ]


def _read_rows(count: ReadCount) -> list[tuple[str, str]]:
    return [("answers", str(count))] if count.saved else []


def _temperature_row(fitted: Temperature | None) -> list[tuple[str, str]]:
    if fitted is None:
        return []
    change = f"log-loss {fitted.before:.3f} to {fitted.after:.3f} on the other half (n={fitted.n})"
    return [("temperature", f"{fitted.value:.2f}, {change}{', not usable' if fitted.problem else ''}")]


def _length_rows(bias: LengthBias) -> list[tuple[str, str]]:
    rows = [
        ("length: correlation within prompts", bias.correlation),
        ("length: accuracy where the better is longer", bias.longer),
        ("length: accuracy where it is shorter", bias.shorter),
        ("length: accuracy at equal length", bias.controlled),
    ]
    shown = [(name, str(estimate)) for name, estimate in rows if estimate.n]
    if not bias.controlled.n and bias.longer.n + bias.shorter.n:
        always = "longer" if bias.longer.n else "shorter"
        shown.append((rows[-1][0], f"unknown: the better answer of these rows is always {always}"))
    return shown


def _list_rows(report: ModelReport) -> list[tuple[str, str]]:
    rows = []
    for name, values in (("", report.agreement), *report.aspects.items()):
        if values is not None:
            label = f" ({name})" if name else ""
            rows.append((f"Kendall tau-b per prompt{label}", str(values.tau_b)))
    if report.agreement is not None:
        rows.append(("NDCG per prompt", str(report.agreement.ndcg)))
    for point in report.best_of_n[1:]:
        others = f"best there {point.oracle.value:.3f}, any {point.random.value:.3f}"
        rows.append((f"best of {point.n}: label", f"{point.chosen}; {others}"))
    return rows
