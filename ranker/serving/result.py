"""A ranking as HTML: a table, best first, and the probabilities of all pairs. Every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ranker.metrics import sigmoid
from ranker.ranking.ranks import rank_scores
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, Scorer

LONG = 160
"""Most characters of an answer in a row."""

CELL = "padding:.35rem .6rem;border:1px solid var(--border-color-primary,#ccc)"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its rank; ``margin`` is its lead over the next one in logits, None for the last."""

    number: int
    text: str
    rank: int
    score: float
    margin: float | None
    tokens: int
    truncated: bool
    flips: int | None
    odds: tuple[float, ...]
    """The probability of being better than each answer of the list, in its order."""


def answers(scorer: Scorer, group: Group, result: GroupScores) -> list[Answer]:
    """The answers of a scored group, best first.

    ``flips`` counts the pairs of the group whose winner changes with the order in which they are read; None for a
    model that does not depend on the order.
    """
    ranking = rank_scores(result.scores)
    order = ranking.order.tolist()
    scores = result.scores[order].astype(np.float64)
    logits = (scores[:, None] - scores[None, :]) / scorer.info.calibration.temperature
    odds = sigmoid(logits)
    tokens = scorer.token_counts(group)
    return [
        Answer(
            number=number + 1,
            text=group.candidates[number],
            rank=int(ranking.ranks[number]),
            score=float(scores[place]),
            margin=float(scores[place] - scores[place + 1]) if place + 1 < len(order) else None,
            tokens=tokens[number],
            truncated=bool(result.truncated[number]),
            flips=None if scorer.info.order_free else result.order_flips,
            odds=tuple(odds[place].tolist()),
        )
        for place, number in enumerate(order)
    ]


def table(ranked_answers: Sequence[Answer]) -> str:
    """Rank, answer, score, margin, probability against the next, tokens."""
    heads = ("rank", "answer", "text", "score (logits)", "", "above the next", "P(better than the next)", "tokens")
    rows = []
    scores = [answer.score for answer in ranked_answers]
    low, span = min(scores), (max(scores) - min(scores)) or 1.0
    for place, answer in enumerate(ranked_answers):
        shown = answer.text if len(answer.text) <= LONG else answer.text[:LONG] + " ..."
        tokens = f"{answer.tokens} (cut)" if answer.truncated else str(answer.tokens)
        lead = "" if answer.margin is None else f"{answer.margin:.2f}"
        odds = "" if answer.margin is None else f"{answer.odds[place + 1]:.2f}"
        texts = (str(answer.rank), str(answer.number), shown, f"{answer.score:.3f}", lead, odds, tokens)
        cells = [*map(escape, texts)]
        cells.insert(4, _bar((answer.score - low) / span))
        rows.append(cells)
    flips = ranked_answers[0].flips
    pairs = len(ranked_answers) * (len(ranked_answers) - 1) // 2
    note = (
        "The order of the answers cannot change the scores of this model."
        if flips is None
        else f"Order consistency: {pairs - flips} of {pairs} pairs have the same winner in both orders."
    )
    return _table(heads, rows) + status_line(note)


def _bar(share: float) -> str:
    """A bar of the score between the worst (a sliver) and the best answer."""
    width = 4 + 96 * share
    return (
        '<div aria-hidden="true" style="width:7rem;background:rgba(128,128,128,.15);border-radius:3px">'
        f'<div style="width:{width:.0f}%;height:.8rem;background:rgb(46,125,50);border-radius:3px"></div></div>'
    )


def heat_map(ranked_answers: Sequence[Answer]) -> str:
    """The probability that the row's answer is better than the column's."""
    heads = ("P(row better)", *(f"answer {answer.number}" for answer in ranked_answers))
    body = ""
    for place, answer in enumerate(ranked_answers):
        cells = "".join(
            f'<td style="{CELL}">-</td>'
            if place == other
            else f'<td style="{CELL};background:rgba(46,125,50,{p:.2f});color:{"#fff" if p > 0.6 else "inherit"}">'
            f"{p:.2f}</td>"
            for other, p in enumerate(answer.odds)
        )
        body += f'<tr><th scope="row" style="{CELL}">answer {answer.number}</th>{cells}</tr>'
    return _framed(heads, body)


def status_line(text: str) -> str:
    """A line of text with the role ``status``."""
    return f'<p role="status">{escape(text)}</p>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f'<td style="{CELL}">{cell}</td>' for cell in row) for row in rows]
    return _framed(heads, "".join(f"<tr>{row}</tr>" for row in cells))


def _framed(heads: Sequence[str], body: str) -> str:
    top = "".join(f'<th scope="col" style="{CELL};text-align:left">{escape(head)}</th>' for head in heads)
    table = f'<table style="border-collapse:collapse"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{table}</div>'
