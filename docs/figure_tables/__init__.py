"""Tables and sentences of the pages, made from the files of figures beside the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent
HERE = "https://github.com/ranker-toolkit/ranker-toolkit/blob/main/docs/"


def figures(name: str) -> dict[str, Any]:
    """The figures in a file of this folder."""
    content: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def table(head: str, rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines, ""])


def interval(estimate: dict[str, Any], n: str = " (n={n})") -> str:
    """A value, its 95 % interval where it has one, and its count."""
    low, high = estimate["low"], estimate["high"]
    bounds = "" if low is None or low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{estimate['value']:.3f}{bounds}{n.format(**estimate)}"


def conditions(run: dict[str, Any]) -> str:
    """The processor, date and versions of a file of figures."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{number(run['threads'], 'thread')} of an {run['machine']}, {run['date']}; {versions}"


def number(count: int, what: str) -> str:
    """A count with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"
