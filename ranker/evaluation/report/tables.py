"""A report's main numbers as rows of text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.evaluation.model_report import ModelReport
from ranker.evaluation.statistics.calibration import Temperature
from ranker.evaluation.statistics.length import LengthBias
from ranker.evaluation.statistics.paired import Paired
from ranker.evaluation.statistics.regression import Regression
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


def headline(report: ModelReport) -> list[tuple[str, str]]:
    """The report's main numbers as (name, text) rows."""
    if report.regression is not None:
        return _regression_rows(report, report.regression)
    swap = report.label_swap
    rows = [
        ("comparisons, prompts", f"{report.comparisons} of {report.prompts} prompts"),
        *_read_rows(ReadCount(report.answers, report.answers_read)),
        ("accuracy", str(report.accuracy)),
        *((f"  {name.replace('_', ' ')}", str(baseline.accuracy)) for name, baseline in report.baselines.items()),
        ("ties predicted", str(report.ties)),
        ("order flips", str(report.order_flips)),
        ("cyclic triads", str(report.cyclic_triads)),
        ("log-loss (nats)", str(report.log_loss)),
        ("Brier score", str(report.brier)),
        ("mean margin (logits)", str(report.mean_margin)),
        ("calibration error", str(report.calibration.error)),
        *_temperature_row(report.calibration.temperature),
        *_length_rows(report.length_bias),
        *_list_rows(report),
        ("labels tied", str(report.labelled_ties)),
        ("labels swapped", f"{swap.accuracy:.3f} (expected {swap.expected:.3f})"),
    ]
    for name, effect in report.robustness.items():
        rows.append((f"edited to {name}: wins", f"{effect.wins}, lead {effect.shift.value:+.2f} logits"))
    for name, shares in (("subset", report.subsets), ("kind", report.kinds)):
        if len(shares) > 1:
            rows += [(f"{name}: {key}", str(share)) for key, share in shares.items()]
    return rows


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
    return [
        ("length: correlation within prompts", str(bias.correlation)),
        ("length: accuracy where the better is longer", str(bias.longer)),
        ("length: accuracy where it is shorter", str(bias.shorter)),
        ("length: accuracy at equal length", str(bias.controlled)),
    ]


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
