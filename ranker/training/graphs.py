"""Comparison graphs: rows about the same answers as one group, in which every answer is read once.

InstructGPT trains on all comparisons of a prompt as one batch element, with one forward pass per answer (arXiv
2203.02155, section 3.5). Here the rows of a file are put together after tokenisation, whatever their shape: pairs,
lists and single answers stay rows of their own and refer to the group's answers by number. So every loss is the sum of
what the rows cost, and only reading is shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.extras import require
from ranker.records import Preference
from ranker.scoring.pipeline import Tokens
from ranker.text.tokenizer import Ids

Shared = Literal["answer", "prompt", "pair"]
"""What makes two rows one group: an answer to the same prompt; the prompt, where it is read once for all answers; or
all answers, where a model reads two together."""

KEY_BYTES: Final = 16
"""Of the hashes that tell texts apart."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A group of rows about the same answers.

    ``rows`` are their numbers, ``tokens`` the prompt and the distinct answers, ``places`` where each row's candidates
    are among the answers, ``mentions`` the rows, by their place in ``rows``, that name each answer.
    """

    rows: tuple[int, ...]
    tokens: Tokens
    places: tuple[Sequence[int], ...]
    mentions: tuple[Sequence[int], ...] = ()

    @property
    def merged(self) -> bool:
        """Whether it holds several rows."""
        return len(self.rows) > 1


def graphs(tokens: Sequence[Tokens], shared: Shared | None) -> list[Graph]:
    """The rows as groups, each where its first row stood; without ``shared`` every row is one.

    Texts are the same where their ids are. Memory: 16 bytes for every candidate, besides the graphs.
    """
    parts = [[row] for row in range(len(tokens))] if shared is None or not tokens else _components(tokens, shared)
    return [
        Graph((rows[0],), tokens[rows[0]], (_all(len(tokens[rows[0]].candidates)),))
        if len(rows) == 1
        else _merged(rows, tokens)
        for rows in parts
    ]


def numbers(tokens: Sequence[Tokens], shared: Shared) -> NDArray[np.intp]:
    """Numbers of what the rows may share, in order, equal where it is the same: one for each row or candidate."""
    inverse: NDArray[np.intp] = np.unique(_hashes(tokens, shared)[0], return_inverse=True)[1]
    return inverse


@cache
def _all(count: int) -> range:
    return range(count)


def _components(tokens: Sequence[Tokens], shared: Shared) -> list[list[int]]:
    """Rows that are connected by what they share, in order."""
    keys, row_of = _hashes(tokens, shared)
    distinct, number = np.unique(keys, return_inverse=True)
    nodes = len(tokens) + len(distinct)
    edges = (np.ones(len(keys), np.int8), (row_of, len(tokens) + number))
    matrix = require("scipy.sparse").coo_matrix(edges, shape=(nodes, nodes))
    _, labels = require("scipy.sparse.csgraph").connected_components(matrix, directed=False)
    parts: dict[int, list[int]] = {}
    for row, label in enumerate(labels[: len(tokens)].tolist()):
        parts.setdefault(label, []).append(row)
    return list(parts.values())


def _hashes(tokens: Sequence[Tokens], shared: Shared) -> tuple[NDArray[np.bytes_], NDArray[np.intp]]:
    """What the rows may share, hashed, and the row of each hash."""
    content = bytearray()
    counts = []
    for row, one in enumerate(tokens):
        keys = list(_keys(one, shared, row))
        counts.append(len(keys))
        content += b"".join(keys)
    return np.frombuffer(bytes(content), f"S{KEY_BYTES}"), np.repeat(np.arange(len(tokens)), counts)


def _keys(tokens: Tokens, shared: Shared, row: int) -> Iterator[bytes]:
    prompt = _hash(tokens.prompt.tobytes())
    if shared == "prompt":
        yield prompt
        return
    answers = [_hash(prompt + candidate.tobytes()) for candidate in tokens.candidates]
    if shared == "answer":
        yield from answers
    elif len(set(answers)) == len(answers):
        yield _hash(b"".join(sorted(answers)))
    else:  # a row of ordered pairs that holds an answer twice stays as it is
        yield _hash(f"row {row}".encode())


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=KEY_BYTES).digest()


def _merged(rows: Sequence[int], tokens: Sequence[Tokens]) -> Graph:
    place: dict[bytes, int] = {}
    candidates: list[Ids] = []
    cut: list[bool] = []
    mentions: list[list[int]] = []
    places: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        row_places = []
        for candidate, candidate_cut in zip(tokens[row].candidates, tokens[row].candidates_cut, strict=True):
            key = candidate.tobytes()
            if key not in place:
                place[key] = len(candidates)
                candidates.append(candidate)
                cut.append(candidate_cut)
                mentions.append([])
            row_places.append(place[key])
        for answer in set(row_places):
            mentions[answer].append(number)
        places.append(tuple(row_places))
    first = tokens[rows[0]]
    answers = Tokens(first.prompt, tuple(candidates), first.prompt_cut, tuple(cut))
    return Graph(tuple(rows), answers, tuple(places), tuple(map(tuple, mentions)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers of a group, by number, and what the rows say of them.

    ``targets`` is the probability that the left is better per task, NaN where a label is missing: of several rows their
    share of wins. ``weight`` is how many rows say so, ``margin`` in logits. ``compared`` are the tokens of either that
    a token-level loss compares; all without it.
    """

    left: int
    right: int
    targets: tuple[float, ...]
    weight: float
    margin: float = 0.0
    compared: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None


def known_pairs(preference: Preference) -> list[tuple[int, int, tuple[float, ...]]]:
    """The comparisons of a row that have a label, as in ``Preference.pairs``."""
    return [pair for pair in preference.pairs() if any(target == target for target in pair[2])]


def combined(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, those of the same two answers as one: the share of wins, and the sum of the weights.

    It costs what they cost together, because the losses are linear in the target. Comparisons with token spans, other
    margins or other missing labels stay apart.
    """
    parts: dict[Any, list[Comparison]] = {}
    for number, one in enumerate(comparisons):
        upward = one if one.left <= one.right else turned(one)
        missing = tuple(target != target for target in one.targets)
        spans = None if one.compared is None else number
        parts.setdefault((upward.left, upward.right, one.margin, missing, spans), []).append(upward)
    return [part[0] if len(part) == 1 else _mean(part) for part in parts.values()]


def turned(one: Comparison) -> Comparison:
    """The same comparison with its sides exchanged."""
    targets = tuple(1 - target for target in one.targets)
    compared = None if one.compared is None else one.compared[::-1]
    return Comparison(one.right, one.left, targets, one.weight, one.margin, compared)


def _mean(part: Sequence[Comparison]) -> Comparison:
    weight = sum(one.weight for one in part)
    columns = zip(*(one.targets for one in part), strict=True)
    shares = tuple(
        sum(one.weight * target for one, target in zip(part, column, strict=True)) / weight for column in columns
    )
    return Comparison(part[0].left, part[0].right, shares, weight, part[0].margin)
