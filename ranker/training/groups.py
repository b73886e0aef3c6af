"""The training rows, tokenised, as groups of answers and of what the rows say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ranker.config.section import WeightBy
from ranker.records import Preference, subset_of
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline, Tokens
from ranker.training.blocks import Edges
from ranker.training.graphs import Comparison, Graph, Shared, combined, graphs, known_pairs, numbers

Item = tuple[int, tuple[int, ...]]
"""A group and the answers of it that appear, in order.

A group ``-1 - number`` is ballast: read like group ``number`` so that all processes take the same number of steps, and
not counted.
"""


@dataclass(frozen=True, slots=True)
class LabelledList:
    """A row as a list: its candidates among the answers that are read, their labels (candidates, tasks), its weight."""

    answers: tuple[int, ...]
    labels: tuple[tuple[float, ...], ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Example:
    """One group as the collator wants it: ``answers`` are read, comparisons and lists refer to them by number."""

    units: tuple[batching.Unit, ...]
    answers: int
    comparisons: tuple[Comparison, ...]
    lists: tuple[LabelledList, ...]
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often the rows name the same answers: ``times`` is the tokens of all rows over those of distinct answers."""

    comparisons: int
    answers: int
    prompts: int
    times: float


class Groups(Dataset[Example]):
    """Tokenised preferences as groups, indexed by ``Item``.

    Args:
        preferences: the training rows; rows with fewer than two candidates must have been left out.
        pipeline: the model's text path. Every text is tokenised once, here.
        merge: whether rows that share an answer become one group, in which every answer is read once (see
            ``ranker.training.graphs``); where the model reads a prompt once for several answers, rows that share the
            prompt, and where it reads two answers together, rows of the same answers.
        weight_by: ``row`` counts every row alike, ``prompt`` every prompt.

    ``read`` counts the groups that were packed so far, ``cut`` those of them that lost tokens. ``repeats`` is None
    where nothing was to be merged.
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        pipeline: TextPipeline,
        *,
        merge: bool = False,
        weight_by: WeightBy = "row",
    ) -> None:
        self.preferences = list(preferences)
        self.pipeline = pipeline
        tokens = pipeline.tokenize([p.group for p in self.preferences])
        self.graphs = graphs(tokens, _shared(pipeline) if merge else None)
        self.repeats = self._repeats(tokens) if merge else None
        self.spans = [
            tuple(pipeline.within(answer, spans) for answer, spans in zip(p.candidates, p.spans, strict=True))
            if p.spans
            else ()
            for p in self.preferences
        ]
        self.weights = np.ones(len(tokens))
        if weight_by == "prompt" and tokens:
            prompts = numbers(tokens, "prompt")
            self.weights = 1 / np.bincount(prompts)[prompts]
        self.read = self.cut = 0

    def summary(self) -> list[str]:
        """A line on how often the rows name the same answers; none where they do not, or were not to be merged."""
        if self.repeats is None:
            return []
        said = self.repeats
        what = f"{said.comparisons:,} comparisons" if said.comparisons else f"{len(self.preferences):,} rows"
        what += f" of {said.answers:,} answers to {said.prompts:,} prompt{'s' if said.prompts > 1 else ''}: "
        if not self.pipeline.layout.order_free:
            layout = self.pipeline.layout.layout
            return [f"{what}{layout} reads two answers together, so an answer is read in each of its pairs"]
        times = f"{said.times:.0f}" if said.times >= 10 else f"{said.times:.1f}"
        apart = "pair by pair" if said.comparisons else "row by row"
        return [f"{what}each answer read once per pass ({times} times less than {apart})"]

    @property
    def times(self) -> float:
        """How many times less is read than pair by pair."""
        return 1.0 if self.repeats is None or not self.pipeline.layout.order_free else self.repeats.times

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, item: Item) -> Example:
        number, chosen = item
        counted, number = number >= 0, max(number, -1 - number)
        graph = self.graphs[number]
        packed = self.pipeline.pack(_subset(graph.tokens, chosen))
        self.read += counted
        self.cut += counted and bool(packed.prompt_truncated or packed.truncated.any())
        comparisons, lists = self._merged(graph, chosen) if graph.merged else self._single(graph.rows[0], chosen)
        return Example(tuple(batching.units([packed])), len(chosen), tuple(comparisons), tuple(lists), counted)

    def cost(self, item: Item) -> tuple[int, int]:
        """(rows, longest row) of one item, without packing it."""
        number, chosen = item
        tokens = self.graphs[max(number, -1 - number)].tokens
        return self.pipeline.cost(len(tokens.prompt), [len(tokens.candidates[i]) for i in chosen])

    def comparisons(self, item: Item) -> int:
        """How many pairs of answers one item compares."""
        number, chosen = item
        graph = self.graphs[max(number, -1 - number)]
        return len(self._merged(graph, chosen)[0]) if graph.merged else len(chosen) * (len(chosen) - 1) // 2

    def weight(self, number: int) -> float:
        """Of all rows of a group."""
        return float(self.weights[list(self.graphs[number].rows)].sum())

    def row_of(self, number: int, block: Sequence[int]) -> Preference:
        """A row of a group that names the first two answers of ``block``."""
        graph = self.graphs[number]
        both = set(graph.mentions[block[0]]) & set(graph.mentions[block[1]])
        return self.preferences[graph.rows[min(both)]]

    def edges(self, number: int) -> Edges:
        """The comparisons of a group as weighted edges between its answers."""
        graph = self.graphs[number]
        edges: dict[int, dict[int, float]] = {answer: {} for answer in range(len(graph.tokens.candidates))}
        for row, places in zip(graph.rows, graph.places, strict=True):
            pairs = known_pairs(self.preferences[row])
            for i, j, _ in pairs:
                share = float(self.weights[row]) / len(pairs)
                for a, b in {(places[i], places[j]), (places[j], places[i])}:
                    edges[a][b] = edges[a].get(b, 0.0) + share
        return edges

    def _single(self, row: int, chosen: Sequence[int]) -> tuple[list[Comparison], list[LabelledList]]:
        """What a row says, of the candidates that are read; its weight does not depend on how many those are."""
        preference, weight = subset_of(self.preferences[row], chosen), float(self.weights[row])
        spans = self.spans[row] and tuple(self.spans[row][i] for i in chosen)
        pairs = known_pairs(preference)
        comparisons = [_comparison(preference, pair, pair[:2], weight / len(pairs), spans) for pair in pairs]
        return comparisons, [LabelledList(tuple(range(len(chosen))), preference.labels(), weight)]

    def _merged(self, graph: Graph, chosen: Sequence[int]) -> tuple[list[Comparison], list[LabelledList]]:
        """What the rows of a group say of the answers that are read; every comparison has its row's share."""
        place = {answer: number for number, answer in enumerate(chosen)}
        comparisons: list[Comparison] = []
        lists: list[LabelledList] = []
        for mention in sorted(set().union(*(graph.mentions[answer] for answer in chosen))):
            row, places = graph.rows[mention], graph.places[mention]
            preference, weight = self.preferences[row], float(self.weights[row])
            pairs = known_pairs(preference)
            for pair in pairs:
                ends = [place.get(places[end]) for end in pair[:2]]
                if ends[0] is not None and ends[1] is not None:
                    share = weight / len(pairs)
                    comparisons.append(_comparison(preference, pair, (ends[0], ends[1]), share, self.spans[row]))
            kept = [i for i, answer in enumerate(places) if answer in place]
            labels = preference.labels()
            lists.append(
                LabelledList(
                    tuple(place[places[i]] for i in kept),
                    tuple(labels[i] for i in kept),
                    weight * len(kept) / len(places),
                )
            )
        return combined(comparisons), lists

    def _repeats(self, tokens: Sequence[Tokens]) -> Repeats | None:
        """None where no answer is named twice."""
        if not tokens:
            return None
        answers = numbers(tokens, "answer")
        lengths = np.array([len(one.prompt) + len(ids) for one in tokens for ids in one.candidates])
        _, first = np.unique(answers, return_index=True)
        if len(first) == len(answers):
            return None
        comparisons = sum(len(known_pairs(preference)) for preference in self.preferences)
        prompts = len(np.unique(numbers(tokens, "prompt")))
        return Repeats(comparisons, len(first), prompts, float(lengths.sum() / lengths[first].sum()))


def _shared(pipeline: TextPipeline) -> Shared:
    if not pipeline.layout.order_free:
        return "pair"
    return "prompt" if pipeline.reads_prompt_once else "answer"


def _subset(tokens: Tokens, chosen: Sequence[int]) -> Tokens:
    return replace(
        tokens,
        candidates=tuple(tokens.candidates[i] for i in chosen),
        candidates_cut=tuple(tokens.candidates_cut[i] for i in chosen),
    )


def _comparison(
    preference: Preference,
    pair: tuple[int, int, tuple[float, ...]],
    places: tuple[int, int],
    weight: float,
    spans: Sequence[NDArray[np.bool_]],
) -> Comparison:
    i, j, targets = pair
    compared = (spans[i], spans[j]) if spans else None
    return Comparison(*places, targets, weight, preference.margin or 0.0, compared)
