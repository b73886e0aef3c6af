"""The page's plots as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ranker.evaluation import plots
from ranker.evaluation.evaluate import Evaluation
from ranker.evaluation.model_report import CalibrationBin
from ranker.evaluation.statistics.best_of_n import BestOfN
from ranker.evaluation.statistics.length import LengthBias
from ranker.extras import require
from ranker.metrics import Estimate

BARS: Final = 30
"""Most subsets in a plot; the tables hold all of them."""

CHARACTERS: Final = 32
"""Most characters of a name beside an axis."""


def charts(evaluation: Evaluation) -> dict[str, str]:
    """Title to SVG of every plot that the evaluation has data for."""
    with require("matplotlib").rc_context({"text.parse_math": False}):  # names may hold dollars
        return {title: _svg(figure) for title, figure in _figures(evaluation).items()}


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    drawn = {
        "Margins": plots.margins(evaluation.comparisons),
        "Calibration": _reliability(report.calibration.bins),
        "Length": _bars(_by_length(report.length_bias), "accuracy"),
    }
    if report.best_of_n:
        drawn["Best of n"] = _best_of_n(report.best_of_n)
    if len(report.subsets) > 1:
        drawn["Subsets"] = _bars(report.subsets, "accuracy")
    if len(report.kinds) > 1:
        drawn["Win matrix"] = _matrix(report.kinds)
    if report.robustness:
        wins = {name: effect.wins for name, effect in report.robustness.items()}
        drawn["Robustness"] = _bars(wins, "share that beats the original")
    return drawn


def _by_length(bias: LengthBias) -> dict[str, Estimate]:
    return {
        "better answer is longer": bias.longer,
        "as long": bias.equal,
        "shorter": bias.shorter,
        "expected at equal length": bias.controlled,
    }


def _reliability(bins: Sequence[CalibrationBin]) -> Any:
    figure, axis = plots.figure(1)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot([b.predicted for b in bins], [b.observed for b in bins], "o-")
    axis.set_xlabel("probability that an answer is better, by the model")
    axis.set_ylabel("share in which it is preferred")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    return figure


def _bars(estimates: Mapping[str, Estimate], label: str) -> Any:
    shown = {name: estimate for name, estimate in estimates.items() if estimate.value == estimate.value}
    names = sorted(shown, key=lambda name: -shown[name].n)[:BARS][::-1] if len(shown) > BARS else [*shown][::-1]
    figure, axis = plots.figure(1, height=1.2 + 0.28 * len(names))
    centre = np.array([shown[name].value for name in names])
    reach = [
        np.abs(centre - [shown[name].low for name in names]),
        np.abs(centre - [shown[name].high for name in names]),
    ]
    axis.errorbar(centre, range(len(names)), xerr=reach, fmt="o", capsize=2)
    axis.axvline(0.5, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(names)), [f"{_short(name)} (n={shown[name].n})" for name in names])
    axis.set_xlabel(label)
    axis.set_xlim(-0.02, 1.02)
    return figure


def _best_of_n(points: Sequence[BestOfN]) -> Any:
    figure, axis = plots.figure(1)
    sizes = [point.n for point in points]
    curves = {
        "best by the labels": [point.oracle for point in points],
        "best by the model": [point.chosen for point in points],
        "any": [point.random for point in points],
    }
    for label, curve in curves.items():
        axis.plot(sizes, [estimate.value for estimate in curve], "o-", label=label)
        axis.fill_between(
            sizes, [estimate.low for estimate in curve], [estimate.high for estimate in curve], alpha=0.15
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{point.n}\n(n={point.chosen.n})" for point in points])
    axis.set_xlabel("answers to choose from")
    axis.set_ylabel("label of the chosen answer")
    axis.legend()
    return figure


def _matrix(shares: Mapping[str, Estimate]) -> Any:
    """Accuracy by the kinds of the better (row) and the other answer (column)."""
    pairs = {tuple(name.split(" > ")): share.value for name, share in shares.items()}
    kinds = sorted({kind for pair in pairs for kind in pair})
    table = np.array([[pairs.get((a, b), np.nan) for b in kinds] for a in kinds], np.float64)
    size = 1.6 + 0.55 * len(kinds)
    figure, axis = plots.figure(1, height=size, width=size + 1.6)
    image = axis.imshow(table, vmin=0, vmax=1, cmap="RdYlGn")
    for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
        axis.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8)
    axis.set_xticks(range(len(kinds)), [*map(_short, kinds)], rotation=45, ha="right")
    axis.set_yticks(range(len(kinds)), [*map(_short, kinds)])
    axis.set_xlabel("other answer")
    axis.set_ylabel("better answer")
    figure.colorbar(image, label="accuracy", shrink=0.8)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= CHARACTERS else f"{name[:CHARACTERS]} ..."


def _svg(figure: Any) -> str:
    out = io.StringIO()
    with require("matplotlib").rc_context({"svg.hashsalt": "ranker"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    require("matplotlib.pyplot").close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
