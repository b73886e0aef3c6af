"""Comparison graphs: rows about the same answers as one group, in which every answer is read once.

InstructGPT trains on all comparisons of a prompt as one batch element, with one forward pass per answer (arXiv
2203.02155, section 3.5). Here the rows of a file are put together after tokenisation, whatever their shape: pairs,
lists and single answers stay rows of their own and refer to the group's answers by number. So every loss is the sum of
what the rows cost, and only reading is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.extras import require
from ranker.records import Preference
from ranker.text.tokens import Tokens

Shared = Literal["answer", "prompt", "pair"]
"""What makes two rows one group: an answer to the same prompt; the prompt, where it is read once for all answers; or
all answers, where a model reads two together."""

KEY_BYTES: Final = 16
"""Of the hashes that tell texts apart."""

LONGEST_LIST: Final = 256
"""Candidates of a row; a longer list stays a group of its own, because its comparisons grow with the square."""

Keys = NDArray[np.bytes_]


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


class TextKeys:
    """Hashes of the texts of all rows, equal where the ids are: ``prompts`` (rows,) and ``answers`` (candidates,).

    An answer's hash is of its prompt, too. ``row_of`` (candidates,) is the row of each candidate.
    """

    def __init__(self, tokens: Sequence[Tokens]) -> None:
        prompts, answers = bytearray(), bytearray()
        for one in tokens:
            prompt = _hash(one.prompt.tobytes())
            prompts += prompt
            for candidate in one.candidates:
                answers += _hash(prompt + candidate.tobytes())
        self.prompts: Keys = np.frombuffer(prompts, f"S{KEY_BYTES}")
        self.answers: Keys = np.frombuffer(answers, f"S{KEY_BYTES}")
        self.unprompted = np.array([len(one.prompt) == 0 for one in tokens], np.bool_)
        self.row_of = np.repeat(np.arange(len(tokens)), [len(one.candidates) for one in tokens])

    def prompt_numbers(self) -> NDArray[np.intp]:
        """Equal for rows of the same prompt; every row without a prompt has a number of its own: (rows,)."""
        numbers: NDArray[np.intp] = np.unique(self.prompts, return_inverse=True)[1]
        return np.where(self.unprompted, len(numbers) + np.arange(len(numbers)), numbers)

    def of(self, shared: Shared) -> tuple[Keys | NDArray[np.intp], NDArray[np.intp]]:
        """What the rows may share, and the row of each."""
        if shared == "prompt":
            return self.prompt_numbers(), np.arange(len(self.prompts))
        if shared == "answer":
            return self.answers, self.row_of
        bounds = np.searchsorted(self.row_of, np.arange(len(self.prompts) + 1))
        return np.array(
            [_of_all(self.answers[a:b], row) for row, (a, b) in enumerate(pairwise(bounds))], f"S{KEY_BYTES}"
        ), np.arange(len(self.prompts))


def _of_all(answers: Keys, row: int) -> bytes:
    """The key of a row's answers in any order; of a row that holds an answer twice one of its own."""
    distinct = set(answers.tolist())
    return _hash(b"".join(sorted(distinct)) if len(distinct) == len(answers) else f"row {row}".encode())


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=KEY_BYTES).digest()


def graphs_of(tokens: Sequence[Tokens], keys: TextKeys, shared: Shared) -> list[Graph]:
    """The rows as groups, each where its first row stood."""
    return [one_row(rows[0], tokens) if len(rows) == 1 else _merged(rows, tokens) for rows in _components(keys, shared)]


def one_row(row: int, tokens: Sequence[Tokens]) -> Graph:
    """A row as a group of its own."""
    return Graph((row,), tokens[row], (_in_order(len(tokens[row].candidates)),))


@cache
def _in_order(count: int) -> range:
    return range(count)


def _components(keys: TextKeys, shared: Shared) -> list[list[int]]:
    """Rows that are connected by what they share, in order."""
    rows = len(keys.prompts)
    if not rows:
        return []
    values, row_of = keys.of(shared)
    mergeable = np.bincount(keys.row_of, minlength=rows) <= LONGEST_LIST
    kept = mergeable[row_of]
    distinct, number = np.unique(values[kept], return_inverse=True)
    nodes = rows + len(distinct)
    edges = (np.ones(len(number), np.int8), (row_of[kept], rows + number))
    matrix = require("scipy.sparse").coo_matrix(edges, shape=(nodes, nodes))
    _, labels = require("scipy.sparse.csgraph").connected_components(matrix, directed=False)
    parts: dict[int, list[int]] = {}
    for row, label in enumerate(labels[:rows].tolist()):
        parts.setdefault(label, []).append(row)
    return list(parts.values())


def _merged(rows: Sequence[int], tokens: Sequence[Tokens]) -> Graph:
    place: dict[bytes, int] = {}
    distinct: list[tuple[int, int]] = []
    mentions: list[list[int]] = []
    places: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        row_places = []
        for i, candidate in enumerate(tokens[row].candidates):
            key = candidate.tobytes()
            if key not in place:
                place[key] = len(distinct)
                distinct.append((row, i))
                mentions.append([])
            row_places.append(place[key])
        for answer in set(row_places):
            mentions[answer].append(number)
        places.append(tuple(row_places))
    first = tokens[rows[0]]
    answers = Tokens(
        first.prompt,
        tuple(tokens[row].candidates[i] for row, i in distinct),
        tuple(tokens[row].prompts_cut[i] for row, i in distinct),
        tuple(tokens[row].candidates_cut[i] for row, i in distinct),
        tuple(tokens[row].starts[i] for row, i in distinct),
        special_text=any(tokens[row].special_text for row in rows),
    )
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


def combined(comparisons: Sequence[Comparison], *, average: bool) -> list[Comparison]:
    """The same comparisons, those of the same two answers as one with the sum of the weights.

    Those with other margins or other missing labels, or with token spans, stay apart.

    Args:
        comparisons: of one group.
        average: whether different targets become one, the share of wins: the loss must be linear in the target, so
            that the one costs what they cost together.
    """
    parts: dict[Any, list[Comparison]] = {}
    for number, one in enumerate(comparisons):
        upward = one if one.left <= one.right else turned(one)
        missing = tuple(target != target for target in one.targets)
        targets = missing if average else tuple(None if target != target else target for target in upward.targets)
        spans = None if one.compared is None else number
        parts.setdefault((upward.left, upward.right, one.margin, targets, spans), []).append(upward)
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
