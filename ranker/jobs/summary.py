"""The summary of a job for people: ``summary.md`` and ``summary.html`` beside the parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

from ranker.atomic import write_text
from ranker.jobs.parts import facts
from ranker.jobs.plan import PLAN, SCORED, Plan
from ranker.progress import duration
from ranker.scoring.distinct import ReadCount

QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BARS: Final = 32
MARKDOWN: Final = "summary.md"
HTML: Final = "summary.html"
FILES: Final = (MARKDOWN, HTML)
WIDTH: Final = 640
HEIGHT: Final = 160


@dataclass(slots=True)
class Counts:
    """Rows of a whole job, and counts of a (coarse) number of the rows' best candidates.

    The number is the ``score`` or, of a model that compares the answers of a prompt, the ``margin`` over the next one.
    """

    read: int = 0
    written: int = 0
    errors: int = 0
    answers: int = 0
    answers_read: int = 0
    first_error: str | None = None
    number: str = "score"
    scores: Counter[float] = field(default_factory=Counter)

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return sum(self.scores.values())

    def quantile(self, share: float) -> float:
        """The number at the quantile ``share``, to 6 %."""
        passed = 0
        for score, count in sorted(self.scores.items()):
            passed += count
            if passed >= share * self.scored:
                return score
        return float("nan")


def counted(folder: Path) -> Counts:
    """The sums of a job's parts."""
    noted = facts(folder)
    # A job that an older version began has parts with scores, and maybe parts with margins.
    counts = Counts(number="margin" if {part.get("number") for part in noted} == {"margin"} else "score")
    for part in noted:
        counts.read += part["read"]
        counts.written += part["rows"]
        counts.errors += part["errors"]
        counts.answers += part.get("answers", 0)
        counts.answers_read += part.get("answers_read", 0)
        counts.first_error = counts.first_error or part["first_error"]
        if part.get("number", "score") == counts.number:
            counts.scores.update({float(score): count for score, count in part["scores"].items()})
    return counts


def write_summary(folder: Path, plan: Plan) -> Counts:
    """Write both files, and return the counts in them."""
    counts = counted(folder)
    rows = _rows(counts, plan, Scoring.of(_scored_in(folder, plan)))
    lines = ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    write_text(folder / MARKDOWN, "\n".join([f"# {folder.name}", "", *lines, ""]))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    drawn = _plot(counts, _threshold(plan))
    write_text(folder / HTML, PAGE.format(title=escape(folder.name), rows=cells, plot=drawn))
    return counts


@dataclass(frozen=True, slots=True)
class Scoring:
    """What the parts say of how they were scored: rows, seconds of all workers together, and the models' paths."""

    rows: int
    seconds: float
    models: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> Scoring:
        """Of the parts in a folder."""
        noted = facts(folder)
        models = sorted({part["model"] for part in noted if "model" in part})
        return cls(sum(part["read"] for part in noted), sum(part.get("seconds", 0.0) for part in noted), tuple(models))

    def __str__(self) -> str:
        pace = f", {self.rows / self.seconds:,.1f} rows/s" if self.seconds else ""
        return f"{self.rows:,} rows in {duration(self.seconds)} of all workers together{pace}"


def _scored_in(folder: Path, plan: Plan) -> Path:
    """The folder in which the rows of a job were scored: its own, or the one that it selects from."""
    if (folder / SCORED).exists():
        return folder / SCORED
    if "input" not in plan.settings or not plan.sources:
        return folder
    before = Path(plan.sources[0].path).parent
    return before if (before / PLAN).exists() else folder


def _threshold(plan: Plan) -> dict[str, Any] | None:
    threshold: dict[str, Any] | None = plan.settings.get("threshold")
    return threshold


def _cell(value: str) -> str:
    """A text for a cell of a Markdown table."""
    return " ".join(value.split()).replace("|", "\\|")


def _rows(counts: Counts, plan: Plan, scoring: Scoring) -> list[tuple[str, str]]:
    files = plan.settings.get("input") or [{"path": file.path, "rows": file.rows} for file in plan.sources]
    digest = str(plan.settings.get("model"))
    models = ", ".join(scoring.models)
    return [
        ("input", ", ".join(f"{file['path']} ({file['rows']:,} rows)" for file in files)),
        ("model", f"{models} (SHA-256 {digest[:12]})" if models and models != digest else digest),
        ("rows read", str(counts.read)),
        ("rows written", f"{counts.written}{share_in_words(counts)}"),
        ("rows with an error", f"{counts.errors}" + (f"; the first: {counts.first_error}" if counts.errors else "")),
        *answers_rows(counts),
        ("selection", selection_in_words(plan)),
        ("scoring", str(scoring)),
        *(
            (f"{NUMBERS[counts.number]}, {share:.0%} quantile (within 6 %)", f"{counts.quantile(share):.3g}")
            for share in QUANTILES
            if counts.scored
        ),
    ]


def share_in_words(counts: Counts) -> str:
    """How many of the rows were written, for a place behind their number."""
    return f" ({counts.written / counts.read:.1%} of those read)" if counts.read else ""


def selection_in_words(plan: Plan) -> str:
    """The selection in words."""
    settings, threshold = plan.settings.get("selection") or {}, _threshold(plan)
    words = []
    if threshold is not None:
        limit = f"{threshold['number']} >= {threshold['at_least']:.6g}"
        words.append(f"the best {plan.settings['share']:.1%} of the rows, {limit}")
    if settings.get("keep"):
        words.append(f"--keep '{settings['keep']}'")
    words += [WORDS[settings["make"]]] if settings.get("make") in WORDS else []
    words += ["without ties"] if settings.get("drop_ties") else []
    return "; ".join(words) or "all rows"


NUMBERS: Final = {"score": "best score", "margin": "margin, best minus next"}
"""The number that is drawn, in the rows of the summary."""

WORDS: Final = {"best": "with the best answer", "pairs": "as pairs of the best and the worst answer"}
"""What becomes of the rows, by the plan's name for it."""


def answers_rows(counts: Counts) -> list[tuple[str, str]]:
    """How many answers were read, where that is fewer than the rows have."""
    count = ReadCount(counts.answers, counts.answers_read)
    return [("answers", str(count))] if count.saved else []


def _plot(totals: Counts, threshold: dict[str, Any] | None) -> str:
    """A histogram of the best scores or margins, in logits, with the threshold where it is one of the same number."""
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
    label = "score of the best candidate" if totals.number == "score" else "margin of the best candidate over the next"
    ends = (
        f'<text x="0" y="{HEIGHT + 16}">{low:.3g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 16}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 16}" text-anchor="middle">{label} (logits), '
        f"n = {totals.scored}</text>"
    )
    line = ""
    if threshold is not None and threshold["number"] == totals.number:
        at = min(1.0, max(0.0, (threshold["at_least"] - low) / ((high - low) or 1.0))) * WIDTH
        side, shift = ("end", -4) if at > WIDTH / 2 else ("start", 4)
        line = (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}"/>'
            f'<text x="{at + shift:.1f}" y="12" text-anchor="{side}">threshold {threshold["at_least"]:.4g}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" role="img" aria-label="histogram">{bars}{line}{ends}</svg>'


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:46rem}}th{{text-align:left;padding-right:1.5rem;
vertical-align:top;font-weight:600}}td{{overflow-wrap:anywhere}}rect{{fill:#356}}line{{stroke:#c33;stroke-width:2}}
text{{font-size:12px;fill:currentColor}}svg{{width:100%;margin-top:1.5rem}}body{{padding:0 1rem}}
@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}rect{{fill:#7ac}}}}</style></head>
<body><h1>{title}</h1><table>{rows}</table>{plot}</body></html>
"""
