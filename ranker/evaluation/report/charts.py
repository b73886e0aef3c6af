"""The page's charts as SVG text: one size, and all models in the same chart."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ranker.evaluation import plots
from ranker.evaluation.evaluate import Evaluation
from ranker.evaluation.model_report import CalibrationBin
from ranker.evaluation.statistics.length import LengthBias
from ranker.extras import require
from ranker.metrics import Estimate, leads, wilson

DARK: Final = 0.4
"""Distance from 0.5 beyond which a cell of the map of kinds is dark."""

BARS: Final = 24
"""Most rows of a chart of intervals, those with the most comparisons; the tables hold all of them."""

KINDS: Final = 7
"""Most kinds in the matrix of kinds."""

CHARACTERS: Final = 24
"""Most characters of a name beside an axis."""

Models = Mapping[str, Evaluation]


def charts(evaluations: Models) -> dict[str, str]:
    """Title to SVG of every chart that the evaluations have data for."""
    named = dict(zip(short_names([*evaluations]), evaluations.values(), strict=True))
    with require("matplotlib").rc_context({"text.parse_math": False, "font.size": 9}):  # names may hold dollars
        return {title: _svg(figure) for title, figure in _figures(named).items()}


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the folders and endings that all of them share, as far as they stay different."""
    if len(names) == 1:
        parts = names[0].replace("\\", "/").rstrip("/").split("/")
        return ["/".join(parts[-2:])]
    split = [name.replace("\\", "/").split("/") for name in names]
    shortest = min(map(len, split))
    first = len(os.path.commonprefix(split))
    last = len(os.path.commonprefix([parts[::-1] for parts in split]))
    first, last = min(first, shortest - 1), min(last, shortest - 1 - min(first, shortest - 1))
    short = ["/".join(parts[first : len(parts) - last]) for parts in split]
    return short if len(set(short)) == len(names) else list(names)


def _figures(models: Models) -> dict[str, Any]:
    reports = {name: evaluation.report for name, evaluation in models.items()}
    compared = {name: evaluation.comparisons for name, evaluation in models.items()}
    ahead = {name: leads(c.where(c.targets != 0.5)) for name, c in compared.items()}
    drawn: dict[str, Any] = {}
    if any(len(values) for values in ahead.values()):
        drawn["Margins"] = _margins(ahead)
        drawn["Certain decisions"] = _certain(ahead)
    bins = {name: report.calibration.bins for name, report in reports.items() if report.calibration.bins}
    if bins:
        drawn["Calibration"] = _calibration(bins)
    drawn["Length"] = _intervals({name: _by_length(report.length_bias) for name, report in reports.items()}, "accuracy")
    if any(report.best_of_n for report in reports.values()):
        drawn["Best of n"] = _best_of_n(models)
    if any(len(report.subsets) > 1 for report in reports.values()):
        drawn["Subsets"] = _intervals({name: report.subsets for name, report in reports.items()}, "accuracy")
    kinds = next(iter(reports.values())).kinds
    if len(reports) == 1 and len(kinds) > 1:
        drawn["Kinds"] = _matrix(kinds)
    if any(report.robustness for report in reports.values()):
        wins = {name: {edit: e.wins for edit, e in report.robustness.items()} for name, report in reports.items()}
        drawn["Edited answers"] = _intervals(wins, "share that beats the original")
    return {title: figure for title, figure in drawn.items() if figure is not None}


def _margins(ahead: Mapping[str, Any]) -> Any:
    figure, axis = plots.figure(1)
    low, high = min(v.min(initial=0) for v in ahead.values()), max(v.max(initial=0) for v in ahead.values())
    for name, values in ahead.items():
        axis.hist(values, bins=np.linspace(low, high or 1.0, 41), histtype="step", linewidth=1.4, label=name)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_xlabel("margin of the preferred answer (logits)")
    axis.set_ylabel("comparisons")
    return _with_legend(figure, axis, ahead)


def _certain(ahead: Mapping[str, Any]) -> Any:
    figure, axis = plots.figure(1)
    for name, values in ahead.items():
        order = np.argsort(-np.abs(values))
        covered = np.arange(1, len(order) + 1)
        axis.plot(
            covered / max(1, len(order)),
            np.cumsum((values[order] > 0) + 0.5 * (values[order] == 0)) / covered,
            label=name,
        )
    axis.set_xlabel("share of comparisons, largest margins first")
    axis.set_ylabel("accuracy among them")
    return _with_legend(figure, axis, ahead)


def _by_length(bias: LengthBias) -> dict[str, Estimate]:
    return {
        "better is longer": bias.longer,
        "as long": bias.equal,
        "shorter": bias.shorter,
        "expected at equal length": bias.controlled,
    }


def _calibration(models: Mapping[str, Sequence[CalibrationBin]]) -> Any:
    """Observed over predicted probability, with the interval of each bin; a comparison counts once."""
    figure, axis = plots.figure(1)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, bins in models.items():
        shares = [wilson(b.observed * b.n / 2, b.n / 2) for b in bins]
        reach = [[b.observed - s.low for b, s in zip(bins, shares, strict=True)]]
        reach.append([s.high - b.observed for b, s in zip(bins, shares, strict=True)])
        axis.errorbar(
            [b.predicted for b in bins],
            [b.observed for b in bins],
            yerr=np.maximum(reach, 0),
            fmt="o-",
            markersize=3.5,
            capsize=2,
            linewidth=1,
            label=name,
        )
    axis.set_xlabel("probability that an answer is better, by the model")
    axis.set_ylabel("share in which it is preferred")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    return _with_legend(figure, axis, models)


def _intervals(models: Mapping[str, Mapping[str, Estimate]], label: str) -> Any:
    """A row per name, and in it the interval of each model; None without a figure."""
    known = {name: {key: e for key, e in shares.items() if e.n} for name, shares in models.items()}
    most = {key: max(s[key].n for s in known.values() if key in s) for shares in known.values() for key in shares}
    keys = sorted(most, key=lambda key: -most[key])[:BARS] if len(most) > BARS else [*most]
    if not keys:
        return None
    figure, axis = plots.figure(1)
    for number, (name, shares) in enumerate(known.items()):
        shift = (number - (len(known) - 1) / 2) * min(0.22, 0.7 / len(known))
        places = [place + shift for place, key in enumerate(keys) if key in shares]
        values = [shares[key] for key in keys if key in shares]
        centre = np.array([e.value for e in values])
        reach = np.abs(np.array([[e.low for e in values], [e.high for e in values]]) - centre)
        axis.errorbar(centre, places, xerr=reach, fmt="o", markersize=3.5, capsize=2, linewidth=1, label=name)
    axis.axvline(0.5, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(keys)), [f"{_short(key)} (n={most[key]})" for key in keys])
    axis.invert_yaxis()
    axis.set_xlabel(label if len(keys) == len(most) else f"{label}; the {len(keys)} largest of {len(most)}")
    axis.set_xlim(-0.02, 1.02)
    return _with_legend(figure, axis, models)


def _best_of_n(models: Models) -> Any:
    figure, axis = plots.figure(1)
    points = next(e.report.best_of_n for e in models.values() if e.report.best_of_n)
    sizes = [point.n for point in points]
    for label, style, curve in (
        ("best by the labels", "--", [point.oracle for point in points]),
        ("any", ":", [point.random for point in points]),
    ):
        axis.plot(sizes, [estimate.value for estimate in curve], style, color="grey", label=label)
    for name, evaluation in models.items():
        chosen = [(point.n, point.chosen) for point in evaluation.report.best_of_n]
        if not chosen:
            continue
        label = "best by the model" if len(models) == 1 else name
        xs = [n for n, _ in chosen]
        axis.plot(xs, [e.value for _, e in chosen], "o-", markersize=3.5, label=label)
        axis.fill_between(xs, [e.low for _, e in chosen], [e.high for _, e in chosen], alpha=0.15)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{point.n}\n(n={point.chosen.n})" for point in points])
    axis.set_xlabel("answers to choose from")
    axis.set_ylabel("label of the chosen answer")
    axis.legend(fontsize=8)
    return figure


def _matrix(shares: Mapping[str, Estimate]) -> Any:
    """Accuracy by the kinds of the better (row) and the other answer (column)."""
    counts: dict[str, int] = {}
    for name, share in shares.items():
        for kind in name.split(" > "):
            counts[kind] = counts.get(kind, 0) + share.n
    kinds = sorted(sorted(counts, key=lambda kind: -counts[kind])[:KINDS])
    pairs = {tuple(name.split(" > ")): share.value for name, share in shares.items()}
    table = np.array([[pairs.get((a, b), np.nan) for b in kinds] for a in kinds], np.float64)
    figure, axis = plots.figure(1)
    axis.imshow(table, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
        color = "white" if abs(table[i, j] - 0.5) > DARK else "black"
        axis.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8, color=color)
    axis.set_xticks(range(len(kinds)), [*map(_short, kinds)], rotation=30, ha="right", fontsize=7)
    axis.set_yticks(range(len(kinds)), [*map(_short, kinds)], fontsize=7)
    axis.set_xlabel("other answer")
    axis.set_ylabel("better answer")
    return figure


def _with_legend(figure: Any, axis: Any, models: Mapping[str, Any]) -> Any:
    if len(models) > 1:
        axis.legend(fontsize=8)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= CHARACTERS else f"{name[: CHARACTERS - 4]} ..."


def _svg(figure: Any) -> str:
    out = io.StringIO()
    with require("matplotlib").rc_context({"svg.hashsalt": "ranker"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    require("matplotlib.pyplot").close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
