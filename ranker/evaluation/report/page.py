"""``report.html``, one self-contained file, and the same tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from ranker.evaluation.evaluate import Evaluation
from ranker.evaluation.report.charts import charts
from ranker.evaluation.report.tables import Rows, headline
from ranker.metrics import leads
from ranker.records import Preference
from ranker.text.templates import render_prompt

WORST: Final = 10
"""Errors that the page shows in full, the most certain ones."""

CHARACTERS: Final = 900
"""Most characters of each text."""

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; padding-bottom: .3rem; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem .25rem 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #eaeef2; } .charts { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; max-width: 100%; } figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; }
details { margin: .6rem 0; } pre { white-space: pre-wrap; background: #f6f8fa; padding: .6rem; border-radius: 6px; }
@media (prefers-color-scheme: dark) { svg { background: white; } }
"""


def html(title: str, evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """The page: a table of all models, what differs between them, and per model plots and the worst errors."""
    parts = [f"<h1>{escape(title)}</h1>", tables(evaluations, compared)]
    for name, evaluation in evaluations.items():
        drawn = "".join(
            f"<figure><figcaption>{escape(chart)}</figcaption>{svg}</figure>"
            for chart, svg in charts(evaluation).items()
        )
        parts += [f"<h2>{escape(name)}</h2>", f"<div class=charts>{drawn}</div>", "<h3>Worst errors</h3>"]
        parts += [_error(*error) for error in worst(evaluation)] or ["<p>none</p>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def tables(evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """The tables of the page without its plots and errors."""
    parts = [_table(_columns(evaluations), [*evaluations])]
    if compared:
        parts += ["<h2>Compared</h2>", _table([(name, [text]) for name, text in compared], ["difference in accuracy"])]
    return "".join(parts)


def markdown(title: str, evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """Title and tables."""
    lines = [f"# {title}", "", f"| | {' | '.join(map(_cell, evaluations))} |", "|---" * (len(evaluations) + 1) + "|"]
    lines += [f"| {_cell(name)} | {' | '.join(map(_cell, values))} |" for name, values in _columns(evaluations)]
    if compared:
        lines += ["", "| compared | difference in accuracy |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(text)} |" for name, text in compared]
    return "\n".join(lines) + "\n"


def worst(evaluation: Evaluation) -> list[tuple[Preference, int, int, float]]:
    """The most certain errors: the row, the preferred answer, the model's choice, and its lead in logits."""
    compared = evaluation.comparisons
    lead = -leads(compared)
    errors = []
    for row in np.argsort(-lead, kind="stable")[:WORST]:
        if lead[row] > 0:
            i, j = compared.indices[row].tolist()
            better, other = (i, j) if compared.targets[row] > 0.5 else (j, i)
            errors.append((evaluation.preferences[compared.groups[row]], better, other, float(lead[row])))
    return errors


def _columns(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, list[str]]]:
    """Rows of all models' headlines, in the order in which they first appear."""
    columns = [dict(headline(evaluation.report)) for evaluation in evaluations.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "") for column in columns]) for name in names]


def _table(rows: Sequence[tuple[str, Sequence[str]]], head: Sequence[str]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in ("", *head))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _error(preference: Preference, better: int, other: int, lead: float) -> str:
    texts: dict[str, Any] = {
        "prompt": render_prompt(preference.prompt),
        "preferred": preference.candidates[better],
        "chosen by the model": preference.candidates[other],
    }
    body = "".join(f"<b>{name}</b><pre>{escape(_short(text))}</pre>" for name, text in texts.items())
    return f"<details><summary>{escape(preference.id)}: by {lead:.2f} logits</summary>{body}</details>"


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
