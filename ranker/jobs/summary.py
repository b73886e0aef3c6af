"""What became of a job's rows, for people: ``summary.md`` and ``summary.html`` beside the parts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from ranker.atomic import write_text
from ranker.jobs.parts import facts
from ranker.jobs.plan import Plan

QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BARS: Final = 32
WIDTH, HEIGHT = 640, 160


@dataclass(slots=True)
class Counts:
    """Rows of a whole job, and how often each (coarse) score of a row's best candidate came."""

    read: int = 0
    written: int = 0
    errors: int = 0
    first_error: str | None = None
    scores: Counter[float] = field(default_factory=Counter)

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return sum(self.scores.values())

    def quantile(self, share: float) -> float:
        """The score that ``share`` of the rows do not reach, to 6 %."""
        passed = 0
        for score, count in sorted(self.scores.items()):
            passed += count
            if passed >= share * self.scored:
                return score
        return float("nan")


def counted(folder: Path) -> Counts:
    """The sums of a job's parts."""
    found = Counts()
    for own in facts(folder):
        found.read += own["read"]
        found.written += own["rows"]
        found.errors += own["errors"]
        found.first_error = found.first_error or own["first_error"]
        found.scores.update({float(score): count for score, count in own["scores"].items()})
    return found


def write_summary(folder: Path, plan: Plan) -> Counts:
    """Write both files, and give what is in them."""
    found = counted(folder)
    rows = _rows(found, plan)
    lines = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    write_text(folder / "summary.md", "\n".join([f"# {folder.name}", "", *lines, ""]))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    write_text(folder / "summary.html", PAGE.format(title=escape(folder.name), rows=cells, plot=_plot(found)))
    return found


def _cell(value: str) -> str:
    """A text that stays in its cell of a Markdown table."""
    return " ".join(value.split()).replace("|", "\\|")


def _rows(found: Counts, plan: Plan) -> list[tuple[str, str]]:
    selection = plan.settings.get("selection")
    kept = f" ({found.written / found.read:.1%} of those read)" if found.read else ""
    return [
        ("rows read", str(found.read)),
        ("rows written", f"{found.written}{kept}"),
        ("rows with an error", f"{found.errors}" + (f"; the first: {found.first_error}" if found.errors else "")),
        ("input", ", ".join(source.path for source in plan.sources)),
        ("model", str(plan.settings.get("model"))),
        *([("best share", f"{plan.settings['share']:.1%}")] if "share" in plan.settings else []),
        ("selection", "all rows" if selection is None else json.dumps(selection)),
        *((f"best score, {share:.0%} quantile", f"{found.quantile(share):.3g}") for share in QUANTILES if found.scored),
    ]


def _plot(found: Counts) -> str:
    """A histogram of the best scores, in logits."""
    if not found.scored:
        return ""
    low, high = found.quantile(0.001), found.quantile(0.999)
    step = (high - low) / BARS or 1.0
    counts = [0] * BARS
    for score, count in found.scores.items():
        counts[min(BARS - 1, max(0, int((score - low) / step)))] += count
    width, top = WIDTH / BARS, max(counts)
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{HEIGHT - HEIGHT * count / top:.1f}" width="{width - 1:.1f}" '
        f'height="{HEIGHT * count / top:.1f}"><title>{low + place * step:.3g}: {count} rows</title></rect>'
        for place, count in enumerate(counts)
    )
    ends = (
        f'<text x="0" y="{HEIGHT + 16}">{low:.3g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 16}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 16}" text-anchor="middle">score of the best candidate (logits), '
        f"n = {found.scored}</text>"
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" role="img" aria-label="histogram">{bars}{ends}</svg>'


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:46rem}}th{{text-align:left;padding-right:1.5rem;
vertical-align:top;font-weight:600}}td{{overflow-wrap:anywhere}}rect{{fill:#356}}text{{font-size:12px}}</style></head>
<body><h1>{title}</h1><table>{rows}</table>{plot}</body></html>
"""
