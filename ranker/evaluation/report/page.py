"""``report.html``, one self-contained file, and the same tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np

from ranker.evaluation.evaluate import Evaluation
from ranker.evaluation.report.charts import charts, short_names
from ranker.evaluation.report.tables import Rows, sections, sentence
from ranker.metrics import leads
from ranker.records import Preference
from ranker.text.templates import render_prompt

WORST: Final = 10
"""Errors that the page shows in full, the most certain ones."""

CHARACTERS: Final = 900
"""Most characters of each text."""

STYLE: Final = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --text: #1b1f24; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #151b23; --text: #e6edf3; --back: #0d1117; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem;
  color: var(--text); background: var(--back); }
h1, h2, h3 { line-height: 1.2; } h1 { overflow-wrap: anywhere; font-size: 1.5rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.lead { font-size: 1.15rem; max-width: 50rem; } .note { max-width: 50rem; margin: .3rem 0; opacity: .8; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0 1rem; }
td, th { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap; } td { white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .2rem; }
figure svg { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
details { margin: .6rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem; border-radius: 6px; }
@media (max-width: 30rem) { body { font-size: 14px; } td { white-space: normal; } td, th { padding-right: .6rem; } }
"""


def html(title: str, evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """The page: what the models reach, charts, figures with their meaning, differences, and the worst errors."""
    drawn = "".join(
        f"<figure><figcaption>{escape(chart)}</figcaption>{svg}</figure>" for chart, svg in charts(evaluations).items()
    )
    short = dict(zip(evaluations, short_names([*evaluations]), strict=True))
    parts = [f"<h1>{escape(title)}</h1>", _lead(evaluations, short), f"<div class=charts>{drawn}</div>"]
    parts += ["<h2>Figures</h2>", "<p class=note>Every figure has its 95 % interval and the number behind it.</p>"]
    for section in _sections(evaluations):
        parts += [f"<h3>{escape(section.title)}</h3>", f"<p class=note>{escape(section.explanation)}</p>"]
        parts.append(_table(section.rows, [*short.values()]))
    if compared:
        parts += ["<h2>Compared</h2>", _table([(name, [text]) for name, text in compared], ["difference in accuracy"])]
    parts.append("<h2>Worst errors</h2>")
    for name, evaluation in evaluations.items():
        parts += [f"<h3>{escape(short[name])}</h3>"] if len(evaluations) > 1 else []
        parts += [_error(*error) for error in worst(evaluation)] or ["<p>none</p>"]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
    )
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _lead(evaluations: Mapping[str, Evaluation], short: Mapping[str, str]) -> str:
    """What each model reaches, in a sentence; of several their names too."""
    each = [
        f"<b>{escape(short[name])}.</b> {escape(sentence(e.report))}" if len(evaluations) > 1 else sentence(e.report)
        for name, e in evaluations.items()
    ]
    return "".join(f"<p class=lead>{text}</p>" for text in each)


def tables(evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """The tables of the page without its charts and errors."""
    rows = [row for section in _sections(evaluations) for row in section.rows]
    parts = [_table(rows, [*evaluations])]
    if compared:
        parts += ["<h2>Compared</h2>", _table([(name, [text]) for name, text in compared], ["difference in accuracy"])]
    return "".join(parts)


def markdown(title: str, evaluations: Mapping[str, Evaluation], compared: Rows) -> str:
    """Title and tables."""
    head = [f"| | {' | '.join(map(_cell, evaluations))} |", "|---" * (len(evaluations) + 1) + "|"]
    lines = [f"# {title}"]
    for section in _sections(evaluations):
        lines += ["", f"## {section.title}", section.explanation, "", *head]
        lines += [f"| {_cell(name)} | {' | '.join(map(_cell, values))} |" for name, values in section.rows]
    if compared:
        lines += ["", "| compared | difference in accuracy |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(text)} |" for name, text in compared]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Columns:
    """A section of several models: (name, the text of each model)."""

    title: str
    explanation: str
    rows: list[tuple[str, list[str]]]


def _sections(evaluations: Mapping[str, Evaluation]) -> list[Columns]:
    """The sections of all models, side by side."""
    each = [{section.title: section for section in sections(e.report)} for e in evaluations.values()]
    titles = dict.fromkeys(title for of_model in each for title in of_model)
    joined = []
    for title in titles:
        columns = [dict(of_model[title].rows) if title in of_model else {} for of_model in each]
        names = dict.fromkeys(name for column in columns for name in column)
        explanation = next(of_model[title].explanation for of_model in each if title in of_model)
        joined.append(Columns(title, explanation, [(name, [c.get(name, "") for c in columns]) for name in names]))
    return joined


def worst(evaluation: Evaluation) -> list[tuple[Preference, int, int, float]]:
    """The most certain error of each prompt, the worst first: row, preferred answer, the model's choice, its lead."""
    compared = evaluation.comparisons
    lead = -leads(compared)
    errors: list[tuple[Preference, int, int, float]] = []
    seen: set[int] = set()
    for row in np.argsort(-lead, kind="stable"):
        prompt = int(compared.prompts[row])
        if lead[row] <= 0 or len(errors) == WORST:
            break
        if prompt not in seen:
            seen.add(prompt)
            i, j = compared.indices[row].tolist()
            better, other = (i, j) if compared.targets[row] > 0.5 else (j, i)
            errors.append((evaluation.preferences[compared.groups[row]], better, other, float(lead[row])))
    return errors


def _table(rows: Sequence[tuple[str, Sequence[str]]], head: Sequence[str]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in ("", *head))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in rows
    )
    return f"<div class=scroll><table><tr>{top}</tr>{body}</table></div>"


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
