"""The page's plots as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ranker.evaluation import plots
from ranker.evaluation.evaluate import Evaluation, Report
from ranker.extras import require

BARS: Final = 30
"""Most subsets in a plot; the tables hold all of them."""

CHARACTERS: Final = 32
"""Most characters of a name beside an axis."""

Values = Mapping[str, Any]


def charts(evaluation: Evaluation) -> dict[str, str]:
    """Title to SVG of every plot that the evaluation has data for."""
    with require("matplotlib").rc_context({"text.parse_math": False}):  # names may hold dollars
        return {title: _svg(figure) for title, figure in _figures(evaluation).items()}


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    drawn = {
        "Margins": plots.margins(evaluation.comparisons),
        "Calibration": _reliability(report["calibration"]["bins"]),
        "Length": _bars({name: report["length_bias"][key] for name, key in LENGTHS.items()}, "accuracy"),
    }
    if report["best_of_n"]:
        drawn["Best of n"] = _best_of_n(report["best_of_n"])
    if len(report["subsets"]) > 1:
        drawn["Subsets"] = _bars(report["subsets"], "accuracy")
    if len(report["kinds"]) > 1:
        drawn["Win matrix"] = _matrix(report)
    if report.get("robustness"):
        wins = {name: values["wins"] for name, values in report["robustness"].items()}
        drawn["Robustness"] = _bars(wins, "share that beats the original")
    return drawn


LENGTHS: Final = {
    "better answer is longer": "longer",
    "as long": "equal",
    "shorter": "shorter",
    "expected at equal length": "controlled",
}


def _reliability(bins: list[dict[str, Any]]) -> Any:
    figure, axis = plots.figure(1)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o-")
    axis.set_xlabel("probability that an answer is better, by the model")
    axis.set_ylabel("share in which it is preferred")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    return figure


def _bars(values: Mapping[str, Values], label: str) -> Any:
    shown = {k: v for k, v in values.items() if v["value"] == v["value"]}
    names = sorted(shown, key=lambda name: -shown[name]["n"])[:BARS][::-1] if len(shown) > BARS else [*shown][::-1]
    figure, axis = plots.figure(1, height=1.2 + 0.28 * len(names))
    centre = np.array([shown[name]["value"] for name in names])
    reach = [np.abs(centre - np.array([shown[name][end] for name in names])) for end in ("low", "high")]
    axis.errorbar(centre, range(len(names)), xerr=reach, fmt="o", capsize=2)
    axis.axvline(0.5, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(names)), [f"{_short(name)} (n={shown[name]['n']})" for name in names])
    axis.set_xlabel(label)
    axis.set_xlim(-0.02, 1.02)
    return figure


def _best_of_n(points: list[dict[str, Any]]) -> Any:
    figure, axis = plots.figure(1)
    sizes = [point["n"] for point in points]
    for key, label in (("oracle", "best by the labels"), ("chosen", "best by the model"), ("random", "any")):
        axis.plot(sizes, [point[key]["value"] for point in points], "o-", label=label)
        axis.fill_between(sizes, *([point[key][end] for point in points] for end in ("low", "high")), alpha=0.15)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [f"{point['n']}\n(n={point['chosen']['n']})" for point in points])
    axis.set_xlabel("answers to choose from")
    axis.set_ylabel("label of the chosen answer")
    axis.legend()
    return figure


def _matrix(report: Report) -> Any:
    """Accuracy by the kinds of the better (row) and the other answer (column)."""
    pairs = {tuple(name.split(" > ")): values for name, values in report["kinds"].items()}
    kinds = sorted({kind for pair in pairs for kind in pair})
    table = np.array([[pairs.get((a, b), {"value": np.nan})["value"] for b in kinds] for a in kinds], np.float64)
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
