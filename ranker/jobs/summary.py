"""The summary of a job for people: ``summary.md`` and ``summary.html`` beside the parts."""

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
from ranker.scoring.distinct import ReadCount

QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BARS: Final = 32
WIDTH: Final = 640
HEIGHT: Final = 160


@dataclass(slots=True)
class Counts:
    """Rows of a whole job, and counts of the (coarse) scores of the rows' best candidates."""

    read: int = 0
    written: int = 0
    errors: int = 0
    answers: int = 0
    answers_read: int = 0
    first_error: str | None = None
    scores: Counter[float] = field(default_factory=Counter)

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return sum(self.scores.values())

    def quantile(self, share: float) -> float:
        """The score at the quantile ``share``, to 6 %."""
        passed = 0
        for score, count in sorted(self.scores.items()):
            passed += count
            if passed >= share * self.scored:
                return score
        return float("nan")


def counted(folder: Path) -> Counts:
    """The sums of a job's parts."""
    counts = Counts()
    for part in facts(folder):
        counts.read += part["read"]
        counts.written += part["rows"]
        counts.errors += part["errors"]
        counts.answers += part.get("answers", 0)
        counts.answers_read += part.get("answers_read", 0)
        counts.first_error = counts.first_error or part["first_error"]
        counts.scores.update({float(score): count for score, count in part["scores"].items()})
    return counts


def write_summary(folder: Path, plan: Plan) -> Counts:
    """Write both files, and return the counts in them."""
    counts = counted(folder)
    rows = _rows(counts, plan)
    lines = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    write_text(folder / "summary.md", "\n".join([f"# {folder.name}", "", *lines, ""]))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    write_text(folder / "summary.html", PAGE.format(title=escape(folder.name), rows=cells, plot=_plot(counts)))
    return counts


def _cell(value: str) -> str:
    """A text for a cell of a Markdown table."""
    return " ".join(value.split()).replace("|", "\\|")


def _rows(counts: Counts, plan: Plan) -> list[tuple[str, str]]:
    selection = plan.settings.get("selection")
    kept = f" ({counts.written / counts.read:.1%} of those read)" if counts.read else ""
    return [
        ("rows read", str(counts.read)),
        ("rows written", f"{counts.written}{kept}"),
        ("rows with an error", f"{counts.errors}" + (f"; the first: {counts.first_error}" if counts.errors else "")),
        *answers_rows(counts),
        ("input", ", ".join(source.path for source in plan.sources)),
        ("model", str(plan.settings.get("model"))),
        *([("best share", f"{plan.settings['share']:.1%}")] if "share" in plan.settings else []),
        ("selection", "all rows" if selection is None else json.dumps(selection)),
        *(
            (f"best score, {share:.0%} quantile", f"{counts.quantile(share):.3g}")
            for share in QUANTILES
            if counts.scored
        ),
    ]


def answers_rows(counts: Counts) -> list[tuple[str, str]]:
    """How many answers were read, where that is fewer than the rows have."""
    count = ReadCount(counts.answers, counts.answers_read)
    return [("answers", str(count))] if count.saved else []


def _plot(totals: Counts) -> str:
    """A histogram of the best scores, in logits."""
    if not totals.scored:
        return ""
    low, high = totals.quantile(0.001), totals.quantile(0.999)
    step = (high - low) / BARS or 1.0
    counts = [0] * BARS
    for score, count in totals.scores.items():
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
        f"n = {totals.scored}</text>"
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" role="img" aria-label="histogram">{bars}{ends}</svg>'


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:46rem}}th{{text-align:left;padding-right:1.5rem;
vertical-align:top;font-weight:600}}td{{overflow-wrap:anywhere}}rect{{fill:#356}}text{{font-size:12px}}</style></head>
<body><h1>{title}</h1><table>{rows}</table>{plot}</body></html>
"""
