"""Training batches: which groups, in which company, under which token budget, for the whole run in advance."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ranker.errors import ConfigError
from ranker.layouts.layout import Cell
from ranker.records import Preference, subset_of
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline, Tokens

CHUNK_BATCHES = 50
"""Batches whose items are sorted by length together: long enough to pad little, short enough to stay shuffled."""

Item = tuple[int, tuple[int, ...]]
"""A row of the data and the candidates of it that appear, in order.

A row ``-1 - row`` is ballast: read like ``row`` so that all processes take the same number of steps, and not counted.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One group as the collator wants it."""

    unit_rows: tuple[batching.Unit, ...]
    preference: Preference
    counted: bool = True
    compared: tuple[NDArray[np.bool_], ...] = ()
    """Of each candidate, which tokens a token-level loss compares: (tokens,); all where empty."""


class Groups(Dataset[Example]):
    """Tokenised preferences, indexed by ``Item``.

    Args:
        preferences: the training rows; groups with fewer than two candidates must have been left out.
        pipeline: the model's text path. Every text is tokenised once, here.

    ``read`` counts the groups that were packed so far, ``cut`` those of them that lost tokens.
    """

    def __init__(self, preferences: Sequence[Preference], pipeline: TextPipeline) -> None:
        self.preferences = list(preferences)
        self.pipeline = pipeline
        self.tokens = pipeline.tokenize([p.group for p in self.preferences])
        self.compared = [
            tuple(pipeline.within(answer, spans) for answer, spans in zip(p.candidates, p.spans, strict=True))
            if p.spans
            else ()
            for p in self.preferences
        ]
        self.read = self.cut = 0

    def __len__(self) -> int:
        return len(self.preferences)

    def __getitem__(self, item: Item) -> Example:
        row, chosen = item
        counted, row = row >= 0, max(row, -1 - row)
        tokens = self._chosen(row, chosen)
        packed = self.pipeline.pack(tokens)
        self.read += counted
        self.cut += counted and bool(packed.prompt_truncated or packed.truncated.any())
        units = batching.units([packed])
        compared = self.compared[row] and tuple(self.compared[row][i] for i in chosen)
        return Example(tuple(units), subset_of(self.preferences[row], chosen), counted, compared)

    def cost(self, item: Item) -> tuple[int, int]:
        """(rows, longest row) of one item, without packing it."""
        tokens = self._chosen(*item)
        return self.pipeline.layout.cost(len(tokens.prompt), [len(ids) for ids in tokens.candidates])

    def _chosen(self, row: int, chosen: Sequence[int]) -> Tokens:
        tokens = self.tokens[row]
        return Tokens(
            tokens.prompt,
            tuple(tokens.candidates[i] for i in chosen),
            tokens.prompt_cut,
            tuple(tokens.candidates_cut[i] for i in chosen),
        )


class RunPlan(Sampler[list[Item]]):
    """All batches of a run, decided before it starts, so that a resumed run sees exactly what is left.

    In every epoch each group appears once, with all its candidates or with a random subset of ``candidates_per_prompt``
    candidates, in random order. Items are shuffled, then batched by length within chunks, then the batches shuffled.

    Args:
        groups: the data.
        num_train_epochs: passes over it; a fraction stops within an epoch.
        max_tokens_per_forward: most padded tokens of one batch.
        candidates_per_prompt: fewest and most candidates shown together.
        seed: decides everything here.
        world: processes that train together; each takes every ``world``-th batch.
        rank: which of them this is.

    Raises:
        ConfigError: there is nothing to train on, or two candidates of a row pass ``max_tokens_per_forward``.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        num_train_epochs: float,
        max_tokens_per_forward: int,
        candidates_per_prompt: tuple[int, int],
        seed: int,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        rng = random.Random(seed)
        self.batches: list[list[Item]] = []
        remaining = num_train_epochs
        while remaining > 0:
            epoch = self._epoch(groups, max_tokens_per_forward, candidates_per_prompt, rng)
            self.batches += epoch[: max(1, round(len(epoch) * min(1.0, remaining)))]
            remaining -= 1
        if not self.batches:
            raise ConfigError("expected at least one group with two candidates to train on, got none")
        ballast = [(-1 - row, chosen) for row, chosen in self.batches[-1]]
        self.process_batches = (self.batches + [ballast] * (-len(self.batches) % world))[rank::world]

    def __len__(self) -> int:
        """Batches of this process; the same number in every process."""
        return len(self.process_batches)

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.process_batches)

    def summary(self, groups: Groups, accumulation: int, learning_rate: float) -> str:
        """Steps, tokens and pairs of a step, and the rate, as a sentence.

        Args:
            groups: the data.
            accumulation: forward passes of this process per optimizer step.
            learning_rate: of the backbone, after the warm-up.
        """
        steps = -(-len(self.process_batches) // accumulation)
        items = [item for batch in self.process_batches for item in batch if item[0] >= 0]
        tokens = sum(prod(groups.cost(item)) for item in items)
        pairs = sum(len(chosen) * (len(chosen) - 1) // 2 for _, chosen in items)
        return (
            f"{steps} steps at a learning rate of {learning_rate:g}, each of about {tokens / steps:.0f} tokens, "
            f"{len(items) / steps:.0f} prompts and {pairs / steps:.0f} pairs"
        )

    def digest(self, groups: Groups) -> str:
        """SHA-256 in hex of the batches and of every token in them."""
        digest = hashlib.sha256(repr(self.batches).encode())
        for tokens in groups.tokens:
            for ids in (tokens.prompt, *tokens.candidates):
                digest.update(ids.tobytes() + b"|")
        return digest.hexdigest()

    @staticmethod
    def _epoch(
        groups: Groups, budget: int, candidates_per_prompt: tuple[int, int], rng: random.Random
    ) -> list[list[Item]]:
        items = [(row, _company(groups, row, candidates_per_prompt, budget, rng)) for row in range(len(groups))]
        rng.shuffle(items)
        costs = [groups.cost(item) for item in items]
        batches: list[list[Item]] = []
        start = 0
        while start < len(items):
            end, tokens = start, 0
            while end < len(items) and tokens < CHUNK_BATCHES * budget:
                tokens += costs[end][0] * costs[end][1]
                end += 1
            chunk = range(start, end)
            cut = batching.plan([costs[i][1] for i in chunk], [costs[i][0] for i in chunk], budget)
            batches += [[items[start + i] for i in indices] for indices in cut]
            start = end
        rng.shuffle(batches)
        return batches


def _company(
    groups: Groups, row: int, candidates_per_prompt: tuple[int, int], budget: int, rng: random.Random
) -> tuple[int, ...]:
    """A random subset in random order, made smaller until it fits the budget.

    Raises:
        ConfigError: not even two candidates fit.
    """
    preference = groups.preferences[row]
    count = len(preference.candidates)
    low, high = (min(size, count) for size in candidates_per_prompt)
    chosen = (
        tuple(range(count)) if preference.label is not None else tuple(rng.sample(range(count), rng.randint(low, high)))
    )
    while (need := prod(groups.cost((row, chosen)))) > budget:
        if len(chosen) <= 2:
            raise ConfigError(
                f"row '{preference.id}' takes {need} tokens, more than training.max_tokens_per_forward {budget}; "
                "raise it or lower model.max_length"
            )
        chosen = chosen[:-1]
    return chosen


class Collator:
    """Examples to one forward pass and its comparisons.

    Adds to ``collate``'s arrays, over C comparisons: ``left`` and ``right`` (C, 2), each a (row, column) into the
    model's output, ``targets`` (C, labels), ``margin`` (C,), and ``weight`` (C,), which sums to 1 over each group so
    that a long list counts as much as a pair. Layouts of ordered pairs see both orders, each with half the weight; they
    lie next to each other. For losses of lists and answers, over G groups of at most N candidates: ``cells`` (G, N, 2),
    the place of every candidate's score, ``labels`` (G, N, labels), NaN absent or missing, and ``counted`` (), how many
    of the groups are not ballast; ballast has no weight and no labels. Where a group has token spans, ``compared``
    (rows, sequence): the tokens within them, and all answer tokens of groups without.
    """

    def __init__(self, pipeline: TextPipeline) -> None:
        self.layout = pipeline.layout
        self.suffix_length = len(getattr(self.layout, "suffix", ()))  # of pointwise rows, which may have token spans

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Collate; see the class for the names and shapes."""
        arrays = batching.collate(self.layout, [unit for e in examples for unit in e.unit_rows])
        batch: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        left: list[Cell] = []
        right: list[Cell] = []
        targets: list[np.ndarray] = []
        margin: list[float] = []
        weight: list[float] = []
        cells: list[list[Cell]] = []
        labels: list[Sequence[tuple[float, ...]]] = []
        start = 0
        for example in examples:
            rows = [row for unit in example.unit_rows for row in unit.rows]
            pairs = [pair for pair in example.preference.pairs() if any(t == t for t in pair[2])]
            for i, j, target in pairs:
                for a, b, t in self._orders(i, j, np.array(target)):
                    first, second = self.layout.cells(rows, start, a, b)
                    left.append(first)
                    right.append(second)
                    targets.append(t)
                    margin.append(example.preference.margin or 0.0)
                    share = 1.0 / len(pairs) / (1 if self.layout.order_free else 2)
                    weight.append(share if example.counted else 0.0)
            if self.layout.order_free:
                count = len(example.preference.candidates)
                cells.append([self.layout.cells(rows, start, i, i)[0] for i in range(count)])
                known = example.preference.labels()
                labels.append(known if example.counted else tuple((float("nan"),) * len(row) for row in known))
            start += len(rows)
        if any(example.compared for example in examples):
            batch["compared"] = self._compared(examples, batch["block_ids"])
        if self.layout.order_free:
            batch["cells"], batch["labels"] = _padded_lists(cells, labels)
        width = len(examples[0].preference.scores[0])
        batch["left"], batch["right"] = (torch.tensor(side, dtype=torch.long).view(-1, 2) for side in (left, right))
        batch["targets"] = torch.tensor(np.array(targets).reshape(len(left), width), dtype=torch.float32)
        batch["margin"] = torch.tensor(margin)
        batch["counted"] = torch.tensor(float(sum(example.counted for example in examples)))
        batch["weight"] = torch.tensor(weight)
        return batch

    def _compared(self, examples: Sequence[Example], blocks: Tensor) -> Tensor:
        """(rows, sequence): the answer tokens that are compared; what was cut, and what follows an answer, is not."""
        compared = blocks > 0
        rows = [(row, example.compared) for example in examples for unit in example.unit_rows for row in unit.rows]
        for place, (row, masks) in enumerate(rows):
            if masks:
                begin, end = int((row.blocks == 0).sum()), len(row.ids) - self.suffix_length
                inside = torch.from_numpy(masks[row.candidates[0]][: end - begin])
                compared[place] = False
                compared[place, begin : begin + len(inside)] = inside
        return compared

    def _orders(self, i: int, j: int, target: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
        return [(i, j, target)] if self.layout.order_free else [(i, j, target), (j, i, 1 - target)]


def _padded_lists(
    cells: Sequence[Sequence[Cell]], labels: Sequence[Sequence[tuple[float, ...]]]
) -> tuple[Tensor, Tensor]:
    width = max(map(len, cells))
    places = torch.zeros(len(cells), width, 2, dtype=torch.long)
    values = torch.full((len(cells), width, len(labels[0][0])), torch.nan)
    for group, (places_of, labels_of) in enumerate(zip(cells, labels, strict=True)):
        places[group, : len(places_of)] = torch.tensor(places_of)
        values[group, : len(labels_of)] = torch.tensor(labels_of)
    return places, values
