"""The training rows, tokenised, as groups of answers and of what the rows say about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ranker.config.section import WeightBy
from ranker.errors import DataError
from ranker.records import Preference, subset_of
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline
from ranker.text.tokens import Tokens
from ranker.training.blocks import Edges
from ranker.training.graphs import Comparison, Graph, Shared, TextKeys, combined, graphs_of, known_pairs, one_row

logger = logging.getLogger(__name__)

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
    """How often the rows name the same texts: ``times`` is the tokens of all rows over those of the groups."""

    comparisons: int
    answers: int
    prompts: int
    times: float


@dataclass(frozen=True, slots=True)
class LossNeeds:
    """What a loss allows and needs: see ``Loss.linear_in_targets`` and ``Loss.reads_answers``."""

    average: bool = True
    answers: bool = False


class Groups(Dataset[Example]):
    """Tokenised preferences as groups, indexed by ``Item``.

    Args:
        preferences: the training rows; rows with fewer than two candidates must have been left out.
        pipeline: the model's text path. Every text is tokenised once, here.
        merge: whether rows that share an answer become one group, in which every answer is read once (see
            ``ranker.training.graphs``). Where decoders read a prompt once for several answers, rows that share the
            prompt are one group; where a model reads two answers together, rows of the same answers are.
        weight_by: ``row`` counts every row alike, ``prompt`` every prompt.
        needs: of the loss.
        on_error: whether a row that the chat template refuses raises, or is left out and counted in the log.

    ``read`` counts the groups that were packed so far, ``cut`` those of them that lost tokens. ``repeats`` is None
    without ``merge``, and where no two rows share anything.
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        pipeline: TextPipeline,
        *,
        merge: bool = False,
        weight_by: WeightBy = "row",
        needs: LossNeeds = LossNeeds(),  # noqa: B008  frozen
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.preferences = list(preferences)
        self.pipeline = pipeline
        self.needs = needs
        tokens = pipeline.tokenize([p.group for p in self.preferences])
        refused = [number for number, texts in enumerate(tokens) if texts.refused]
        if refused:
            self._leave_out(refused, tokens, on_error)
            tokens = [texts for texts in tokens if not texts.refused]
        self.repeats: Repeats | None = None
        self.weights = np.ones(len(tokens))
        keys = TextKeys(tokens) if merge or weight_by == "prompt" else None
        if merge and keys is not None:
            self.graphs = graphs_of(tokens, keys, _shared(pipeline))
            self.repeats = self._repeats(tokens, keys)
        else:
            self.graphs = [one_row(row, tokens) for row in range(len(tokens))]
        if weight_by == "prompt" and keys is not None:
            numbers = keys.prompt_numbers()
            self.weights = 1 / np.bincount(numbers)[numbers]
        self.spans = [
            tuple(pipeline.within(p.prompt, answer, spans) for answer, spans in zip(p.candidates, p.spans, strict=True))
            if p.spans
            else ()
            for p in self.preferences
        ]
        self._pairs: dict[int, int] = {}
        self.read = self.cut = 0

    def _leave_out(self, refused: Sequence[int], tokens: Sequence[Tokens], on_error: Literal["raise", "skip"]) -> None:
        """Leave out rows that the chat template refuses.

        Raises:
            DataError: the first of them, under ``on_error: raise``.
        """
        first = refused[0]
        candidate, reason = next(iter(tokens[first].refused.items()))
        error = DataError(self.preferences[first].id, f"candidates[{candidate}]", reason)
        if on_error == "raise":
            raise error
        logger.warning("%d of %d rows are left out; the first: %s", len(refused), len(tokens), error)
        gone = set(refused)
        self.preferences = [row for number, row in enumerate(self.preferences) if number not in gone]

    def summary(self) -> list[str]:
        """A line on how often the rows name the same texts; empty where they do not, or are not merged."""
        if self.repeats is None:
            return []
        repeats = self.repeats
        what = f"{repeats.comparisons:,} comparisons" if repeats.comparisons else f"{len(self.preferences):,} rows"
        what += f" of {_counted(repeats.answers, 'answer')} to {_counted(repeats.prompts, 'prompt')}: "
        if not self.pipeline.layout.order_free:
            layout = self.pipeline.layout.layout
            return [f"{what}{layout} reads two answers together, so an answer is read in each of its pairs"]
        times = f"{repeats.times:.0f}" if repeats.times >= 10 else f"{repeats.times:.1f}"
        apart = "pair by pair" if repeats.comparisons else "row by row"
        shared = ", and its prompt once for several answers" if self.pipeline.prefix_sharing else ""
        return [f"{what}each answer read once per pass{shared} ({times} times less than {apart})"]

    @property
    def times(self) -> float:
        """How many times less is read than pair by pair."""
        return 1.0 if self.repeats is None or not self.pipeline.layout.order_free else self.repeats.times

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, item: Item) -> Example:
        graph, chosen = self._graph(item), item[1]
        counted = item[0] >= 0
        packed = self.pipeline.pack(graph.tokens.subset(chosen))
        self.read += counted
        self.cut += counted and bool(packed.prompt_truncated or packed.truncated.any())
        comparisons, lists = self._merged(graph, chosen) if graph.merged else self._single(graph.rows[0], chosen)
        return Example(tuple(batching.units([packed])), len(chosen), tuple(comparisons), tuple(lists), counted)

    def cost(self, item: Item) -> tuple[int, int]:
        """(rows, longest row) of one item, without packing it."""
        tokens = self._graph(item).tokens
        return self.pipeline.cost(len(tokens.prompt), [len(tokens.candidates[i]) for i in item[1]])

    def comparisons(self, item: Item) -> int:
        """How many pairs of answers one item compares."""
        graph, chosen = self._graph(item), item[1]
        return len(self._merged(graph, chosen)[0]) if graph.merged else len(chosen) * (len(chosen) - 1) // 2

    def weight(self, number: int) -> float:
        """Of all rows of a group that compare answers."""
        rows = [row for row in self.graphs[number].rows if len(self.preferences[row].candidates) > 1]
        return float(self.weights[rows].sum())

    def row_of(self, number: int, block: Sequence[int]) -> Preference:
        """A row of a group that names all answers of ``block``, at most two that are compared."""
        graph = self.graphs[number]
        return self.preferences[graph.rows[min(set.intersection(*(set(graph.mentions[answer]) for answer in block)))]]

    def edges(self, number: int) -> Edges:
        """The comparisons of a group as weighted edges between its answers."""
        graph = self.graphs[number]
        edges: dict[int, dict[int, float]] = {answer: {} for answer in range(len(graph.tokens.candidates))}
        for row, places in zip(graph.rows, graph.places, strict=True):
            for i, j, _ in known_pairs(self.preferences[row]):
                for a, b in {(places[i], places[j]), (places[j], places[i])}:
                    edges[a][b] = edges[a].get(b, 0.0) + self._share(row)
        return edges

    def _graph(self, item: Item) -> Graph:
        return self.graphs[max(item[0], -1 - item[0])]

    def _share(self, row: int) -> float:
        """The weight of each comparison of a row."""
        if row not in self._pairs:
            self._pairs[row] = max(1, len(known_pairs(self.preferences[row])))
        return float(self.weights[row]) / self._pairs[row]

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
            kept = [i for i, answer in enumerate(places) if answer in place]
            if len(kept) < 2 and not self.needs.answers:
                continue
            preference, answers = self.preferences[row], tuple(place[places[i]] for i in kept)
            labels = preference.labels()
            weight = float(self.weights[row]) * len(kept) / len(places)
            lists.append(LabelledList(answers, tuple(labels[i] for i in kept), weight))
            if len(kept) < 2:
                continue
            part = subset_of(preference, kept)
            spans = self.spans[row] and tuple(self.spans[row][i] for i in kept)
            for pair in known_pairs(part):
                ends = (answers[pair[0]], answers[pair[1]])
                comparisons.append(_comparison(part, pair, ends, self._share(row), spans))
        return combined(comparisons, average=self.needs.average), lists

    def _repeats(self, tokens: Sequence[Tokens], keys: TextKeys) -> Repeats | None:
        answers = len(np.unique(keys.answers))
        if answers == len(keys.answers) and not any(graph.merged for graph in self.graphs):
            return None
        comparisons = sum(len(known_pairs(preference)) for preference in self.preferences)
        prompts = len(np.unique(keys.prompts))
        once = self.pipeline.reads_prompt_once
        rows, groups = (sum(_tokens(part, once) for part in parts) for parts in (tokens, map(_texts, self.graphs)))
        return Repeats(comparisons, answers, prompts, rows / max(1, groups))


def _texts(graph: Graph) -> Tokens:
    return graph.tokens


def _tokens(texts: Tokens, prompt_once: bool) -> int:
    """Tokens of a group's texts; the prompt once, or with every answer."""
    prompts = min(1, len(texts.candidates)) if prompt_once else len(texts.candidates)
    return prompts * len(texts.prompt) + sum(map(len, texts.candidates)) - sum(texts.starts)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _shared(pipeline: TextPipeline) -> Shared:
    if not pipeline.layout.order_free:
        return "pair"
    return "prompt" if pipeline.prefix_sharing else "answer"


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
