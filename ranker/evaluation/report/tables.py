"""A report's main numbers as rows of text, for the terminal and the page."""

from __future__ import annotations

from typing import Any, Final

from ranker.evaluation.evaluate import Report
from ranker.evaluation.statistics.paired import Paired
from ranker.metrics import Estimate, Share

LENGTH_ROWS: Final = (
    ("correlation within prompts", "correlation"),
    ("accuracy where the better is longer", "longer"),
    ("accuracy where it is shorter", "shorter"),
    ("accuracy at equal length", "controlled"),
)


def compared(result: Paired | None, first: str, second: str) -> str:
    """A difference in accuracy with its interval, how often only one of the models was right, and the exact test."""
    if result is None:
        return "no comparison in common"
    return (
        f"{result.difference}; only {first} right: {result.first_only}, only {second} right: {result.second_only}, "
        f"McNemar p = {result.p_value:.2g}{f', {second} is significantly worse' if result.worse else ''}"
    )


def headline(report: Report) -> list[tuple[str, str]]:
    """The report's main numbers as (name, text) rows."""
    rows = [
        ("comparisons, prompts", f"{report['comparisons']} of {report['prompts']} prompts"),
        ("accuracy", str(Share(**report["accuracy"]))),
        *((f"  {name.replace('_', ' ')}", str(_share(b))) for name, b in report["baselines"].items()),
        ("ties predicted", str(report["ties"])),
        ("order flips", str(Share(**report["order_flips"]))),
        ("cyclic triads", str(Share(**report["cyclic_triads"]))),
        ("log-loss (nats)", str(Estimate(**report["log_loss"]))),
        ("Brier score", str(Estimate(**report["brier"]))),
        ("mean margin (logits)", str(Estimate(**report["mean_margin"]))),
        ("calibration error", str(Estimate(**report["calibration"]["error"]))),
        *_temperature_row(report["calibration"]["temperature"]),
        *((f"length: {name}", str(Estimate(**report["length_bias"][key]))) for name, key in LENGTH_ROWS),
        *_list_rows(report),
        ("labels tied", str(report["labelled_ties"])),
        ("labels swapped", f"{report['label_swap']['accuracy']:.3f} (expected {report['label_swap']['expected']:.3f})"),
    ]
    for name, values in report.get("robustness", {}).items():
        rows.append(
            (f"edited to {name}: wins", f"{Share(**values['wins'])}, lead {values['shift']['value']:+.2f} logits")
        )
    for name in ("subsets", "kinds"):
        if len(report[name]) > 1:
            rows += [(f"{name[:-1]}: {key}", str(Share(**value))) for key, value in report[name].items()]
    return rows


def _temperature_row(fitted: dict[str, Any] | None) -> list[tuple[str, str]]:
    if fitted is None:
        return []
    change = f"log-loss {fitted['before']:.3f} to {fitted['after']:.3f} on the other half (n={fitted['n']})"
    return [("temperature", f"{fitted['value']:.2f}, {change}{', not usable' if fitted['problem'] else ''}")]


def _list_rows(report: Report) -> list[tuple[str, str]]:
    rows = []
    for name, values in (("", report["agreement"]), *report["aspects"].items()):
        if values is not None:
            label = f" ({name})" if name else ""
            rows.append((f"Kendall tau-b per prompt{label}", str(Estimate(**values["tau_b"]))))
    if report["agreement"] is not None:
        rows.append(("NDCG per prompt", str(Estimate(**report["agreement"]["ndcg"]))))
    for point in report["best_of_n"][1:]:
        chosen, oracle, random = (Estimate(**point[key]) for key in ("chosen", "oracle", "random"))
        rows.append(
            (f"best of {point['n']}: label", f"{chosen}; best there {oracle.value:.3f}, any {random.value:.3f}")
        )
    return rows


def _share(values: dict[str, Any]) -> Share:
    return Share(*(values[name] for name in ("value", "low", "high", "n")))
