"""Training batches: which groups, in which company, under which token budget, for the whole run in advance."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from ranker.config import TrainingConfig
from ranker.errors import ConfigError
from ranker.layouts.layout import Cell
from ranker.layouts.pairs import PairLayout
from ranker.records import Preference
from ranker.scoring import batching, buckets
from ranker.scoring.pipeline import TextPipeline
from ranker.text.tokenizer import TextTokenizer
from ranker.training.blocks import Blocks
from ranker.training.defaults import passes
from ranker.training.graphs import Comparison, turned
from ranker.training.groups import Example, Groups, Item, LabelledList, LossNeeds
from ranker.training.losses import AnswerLoss, Loss

CHUNK_BATCHES: Final = 50
"""Batches whose items are sorted by length together: long enough to pad little, short enough to stay shuffled."""

COUNTED: Final = 1000
"""Items whose comparisons are counted for the summary."""


LEAST_BLOCK: Final = 4
"""Answers that a block may have whatever part of a pass they take."""

FEW_STEPS: Final = 100
"""A run on merged rows with fewer steps than these, at a rate below ``SMALL_RATE``, is advised to read more often."""

TOO_FEW_STEPS: Final = 10
"""Steps in which a new head does not learn, whatever the rate."""

SMALL_RATE: Final = 1e-4


def grouped(
    config: TrainingConfig,
    preferences: Sequence[Preference],
    model: Any,
    tokenizer: TextTokenizer,
    loss: Loss,
    *,
    on_error: Literal["raise", "skip"] = "raise",
) -> Groups:
    """The training rows as a run reads them.

    Raises:
        ConfigError: a prompt that is to be read once by a model that cannot.
        DataError: a row that the chat template refuses, under ``on_error: raise``.
    """
    if config.prefix_sharing and not getattr(model, "prefix_sharing", False):
        raise ConfigError(
            f"training.prefix_sharing is for pointwise decoders; layout '{model.layout.layout}' of "
            f"'{model.config.model_type}' does not read several answers after one prompt"
        )
    pipeline = TextPipeline(model.layout, tokenizer, prefix_sharing=config.prefix_sharing)
    needs = LossNeeds(average=loss.linear_in_targets, answers=isinstance(loss, AnswerLoss))
    return Groups(
        preferences,
        pipeline,
        merge=config.merge_rows,
        weight_by=config.weight_by,
        needs=needs,
        on_error=on_error,
    )


def planned(config: TrainingConfig, groups: Groups, *, world: int = 1, rank: int = 0) -> RunPlan:
    """The batches of a run, those of one of its processes."""
    return RunPlan(
        groups,
        num_train_epochs=config.num_train_epochs or passes(groups.times),
        max_tokens_per_forward=config.tokens_per_forward,
        candidates_per_prompt=config.candidates_per_prompt,
        groups_per_forward=config.groups_per_forward,
        length_buckets=config.length_buckets,
        seed=config.seed,
        world=world,
        rank=rank,
    )


class RunPlan(Sampler[list[Item]]):
    """All batches of a run, decided before it starts, so that a resumed run sees exactly what is left.

    In every epoch each group of one row appears once, with all its candidates or with a random subset of
    ``candidates_per_prompt`` candidates, in random order. A group of several rows appears whole where it fits its part
    of the budget, otherwise cut into blocks (``ranker.training.blocks``), anew in every epoch. Where scores depend on
    the company, blocks have ``candidates_per_prompt`` answers. Items are shuffled, then batched by length within
    chunks, then the batches shuffled.

    Args:
        groups: the data.
        num_train_epochs: passes over it; a fraction stops within an epoch.
        max_tokens_per_forward: most padded tokens of one batch.
        candidates_per_prompt: fewest and most candidates shown together.
        groups_per_forward: a group of several rows takes at most this part of the budget, or ``LEAST_BLOCK`` answers.
        length_buckets: whether batches fill few shapes (``ranker.scoring.buckets``).
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
        groups_per_forward: int = 1,
        length_buckets: bool = False,
        seed: int,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        rng = random.Random(seed)
        self._cut_into_batches = buckets.plan if length_buckets else batching.plan
        self.groups_per_forward = groups_per_forward
        self._blocks: dict[int, Blocks] = {}
        self._weight_used = self._weight = 0.0
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

    def largest(self, groups: Groups) -> list[Item]:
        """The batch that takes the most memory: the most padded tokens, of equals the longest rows."""

        def size(batch: list[Item]) -> tuple[int, int]:
            rows, lengths = zip(*map(groups.cost, batch), strict=True)
            return sum(rows) * max(lengths), max(lengths)

        return max(self.process_batches, key=size)

    def summary(self, groups: Groups, accumulation: int, learning_rate: float) -> str:
        """Steps, tokens and pairs of a step, and the rate, as a sentence.

        Args:
            groups: the data.
            accumulation: forward passes of this process per optimizer step.
            learning_rate: of the backbone, after the warm-up.
        """
        steps = -(-len(self.process_batches) // accumulation)
        items = [item for batch in self.process_batches for item in batch if item[0] >= 0]
        tokens = self.tokens(groups)
        some = items[:: max(1, len(items) // COUNTED)]
        pairs = len(items) / max(1, len(some)) * sum(map(groups.comparisons, some))
        cut = ""
        if self.used < 0.995 and not groups.needs.answers:
            cut = f"; large groups are cut into blocks, and a pass has {self.used:.0%} of the merged comparisons"
        line = (
            f"{steps} steps at a learning rate of {learning_rate:g}, each of about {tokens / steps:.0f} tokens, "
            f"{len(items) / steps:.0f} prompts and {pairs / steps:.0f} pairs"
        )
        return line + cut + _advice(groups, steps, learning_rate)

    def tokens(self, groups: Groups) -> int:
        """Padded tokens of all batches of this process."""
        return sum(prod(groups.cost(item)) for batch in self.process_batches for item in batch if item[0] >= 0)

    @property
    def used(self) -> float:
        """The share of the comparisons of merged rows that a pass has."""
        return self._weight_used / self._weight if self._weight else 1.0

    def digest(self, groups: Groups) -> str:
        """SHA-256 in hex of the batches and of every token in them."""
        digest = hashlib.sha256(repr(self.batches).encode())
        for graph in groups.graphs:
            for ids in (graph.tokens.prompt, *graph.tokens.candidates):
                digest.update(ids.tobytes() + b"|")
            if graph.merged:
                digest.update(repr((graph.rows, graph.places)).encode())
        return digest.hexdigest()

    def _epoch(
        self, groups: Groups, budget: int, candidates_per_prompt: tuple[int, int], rng: random.Random
    ) -> list[list[Item]]:
        items: list[Item] = []
        for number, graph in enumerate(groups.graphs):
            if graph.merged:
                items += [(number, block) for block in self._cut(groups, number, candidates_per_prompt, budget, rng)]
            else:
                items.append((number, _company(groups, number, candidates_per_prompt, budget, rng)))
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
            cut = self._cut_into_batches([costs[i][1] for i in chunk], [costs[i][0] for i in chunk], budget)
            batches += [[items[start + i] for i in indices] for indices in cut]
            start = end
        rng.shuffle(batches)
        return batches

    def _cut(
        self,
        groups: Groups,
        number: int,
        candidates_per_prompt: tuple[int, int],
        budget: int,
        rng: random.Random,
    ) -> list[tuple[int, ...]]:
        """A group of several rows, whole or in blocks that fit their part of the budget.

        Raises:
            ConfigError: two answers that are compared do not fit.
        """
        count = len(groups.graphs[number].tokens.candidates)
        low, high = (min(size, count) for size in candidates_per_prompt)
        relative = groups.pipeline.layout.scores_are_relative
        weight = groups.weight(number)
        self._weight += weight

        def fits(block: tuple[int, ...]) -> bool:
            need = prod(groups.cost((number, block)))
            if need > budget and len(block) <= 2:
                raise _too_long(groups.row_of(number, block), need, budget)
            return need <= (budget if len(block) <= LEAST_BLOCK else budget // self.groups_per_forward)

        if (not relative or count <= high) and count and fits(tuple(range(count))):
            self._weight_used += weight
            return [tuple(range(count))]
        if number not in self._blocks:
            lone, fill = groups.needs.answers, groups.pipeline.prefix_sharing
            self._blocks[number] = Blocks(groups.edges(number), keep_lone=lone, fill=fill)
        blocks = self._blocks[number]
        chosen = blocks.cut(fits, (lambda: rng.randint(low, high)) if relative else (lambda: count), rng)
        self._weight_used += blocks.weight_of(chosen)
        return chosen


def _advice(groups: Groups, steps: int, learning_rate: float) -> str:
    """What to do where there are few steps, or few for a small rate after merging."""
    if steps < TOO_FEW_STEPS:
        return "; so few steps teach a model little: raise training.num_train_epochs, or take more rows"
    if steps >= FEW_STEPS or learning_rate >= SMALL_RATE or groups.times < 2:
        return ""
    return "; these are few steps for this rate, and more passes are cheap: raise training.num_train_epochs"


def _company(
    groups: Groups, number: int, candidates_per_prompt: tuple[int, int], budget: int, rng: random.Random
) -> tuple[int, ...]:
    """A random subset in random order, made smaller until it fits the budget.

    Raises:
        ConfigError: not even two candidates fit.
    """
    preference = groups.preferences[groups.graphs[number].rows[0]]
    count = len(preference.candidates)
    low, high = (min(size, count) for size in candidates_per_prompt)
    chosen = (
        tuple(range(count)) if preference.label is not None else tuple(rng.sample(range(count), rng.randint(low, high)))
    )
    while (need := prod(groups.cost((number, chosen)))) > budget:
        if len(chosen) <= 2:
            raise _too_long(preference, need, budget)
        chosen = chosen[:-1]
    return chosen


def _too_long(preference: Preference, tokens: int, budget: int) -> ConfigError:
    return ConfigError(
        f"row '{preference.id}' takes {tokens} tokens, more than training.max_tokens_per_forward {budget}; raise it or "
        "lower model.max_length"
    )


class Collator:
    """Examples to one forward pass and its comparisons.

    Adds to ``collate``'s arrays, over C comparisons: ``left`` and ``right`` (C, 2), each a (row, column) into the
    model's output, ``targets`` (C, labels), ``margin`` (C,), and ``weight`` (C,), which sums to 1 over each row of the
    data so that a long list counts as much as a pair. Layouts of ordered pairs see both orders, each with half the
    weight; they lie next to each other. For losses of lists and answers, over L rows of the data of at most N
    candidates: ``cells`` (L, N, 2), the place of every candidate's score, ``labels`` (L, N, labels), NaN absent or
    missing, ``list_weight`` (L,), and ``counted`` (), its sum; ballast has no weight and no labels; ``answers`` (K, 2)
    and ``answer_labels`` (K, labels) are those of the answers that have a label. They are chosen here, because choosing
    them by a mask on a GPU would make every pass wait for it. Where a row has
    token spans, ``compared`` (C, 2, sequence): the tokens within them on either side, and all answer tokens of
    comparisons without.

    Args:
        pipeline: the model's text path.
        bucket_tokens: the budget of a pass whose arrays are padded to one of few shapes; None leaves them as they are.
    """

    def __init__(self, pipeline: TextPipeline, bucket_tokens: int | None = None) -> None:
        self.layout = pipeline.layout
        self.bucket_tokens = bucket_tokens
        self.suffix_length = len(getattr(self.layout, "suffix", ()))  # of pointwise rows, which may have token spans

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Collate; see the class for the names and shapes."""
        arrays = batching.collate(self.layout, [unit for e in examples for unit in e.units])
        if self.bucket_tokens is not None:
            arrays = buckets.padded(arrays, self.layout, self.bucket_tokens)
        batch: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        left: list[Cell] = []
        right: list[Cell] = []
        comparisons: list[Comparison] = []
        weight: list[float] = []
        cells: list[list[Cell]] = []
        lists: list[LabelledList] = []
        start = 0
        for example in examples:
            rows = [row for unit in example.units for row in unit.rows]
            place = self.layout.places(rows, start) if self.layout.order_free else {}
            for one_list in example.lists if self.layout.order_free else ():
                cells.append([place[i] for i in one_list.answers])
                lists.append(one_list if example.counted else _ballast(one_list))
            for comparison in example.comparisons:
                for one in self._orders(comparison):
                    first, second = (
                        self.layout.cells(rows, start, one.left, one.right)
                        if isinstance(self.layout, PairLayout)
                        else (place[one.left], place[one.right])
                    )
                    left.append(first)
                    right.append(second)
                    comparisons.append(one)
                    weight.append(one.weight if example.counted else 0.0)
            start += len(rows)
        if any(one.compared for one in comparisons):
            batch["compared"] = self._compared(comparisons, left, right, batch["block_ids"])
        if self.layout.order_free:
            batch["cells"], batch["labels"] = _padded_lists(cells, [one.labels for one in lists])
            labelled = ~batch["labels"].isnan().all(dim=-1)
            batch["answers"], batch["answer_labels"] = batch["cells"][labelled], batch["labels"][labelled]
            batch["list_weight"] = torch.tensor([one.weight for one in lists])
        width = len(examples[0].lists[0].labels[0])
        batch["left"], batch["right"] = (torch.tensor(side, dtype=torch.long).view(-1, 2) for side in (left, right))
        targets = np.array([one.targets for one in comparisons])
        batch["targets"] = torch.tensor(targets.reshape(len(left), width), dtype=torch.float32)
        batch["margin"] = torch.tensor([one.margin for one in comparisons])
        batch["counted"] = torch.tensor(float(sum(one.weight for e in examples if e.counted for one in e.lists)))
        batch["weight"] = torch.tensor(weight)
        return batch

    def _compared(
        self, comparisons: Sequence[Comparison], left: Sequence[Cell], right: Sequence[Cell], blocks: Tensor
    ) -> Tensor:
        """(C, 2, sequence): the answer tokens that are compared; what was cut, and what follows an answer, is not."""
        compared = torch.stack([(blocks > 0)[torch.tensor(side)[:, 0]] for side in (left, right)], dim=1)
        for number, (one, *cells) in enumerate(zip(comparisons, left, right, strict=True)):
            if one.compared is not None:
                for side, (mask, (row, _)) in enumerate(zip(one.compared, cells, strict=True)):
                    begin, end = int((blocks[row] == 0).sum()), int((blocks[row] >= 0).sum()) - self.suffix_length
                    inside = torch.from_numpy(mask[: end - begin])
                    compared[number, side] = False
                    compared[number, side, begin : begin + len(inside)] = inside
        return compared

    def _orders(self, comparison: Comparison) -> list[Comparison]:
        if self.layout.order_free:
            return [comparison]
        half = replace(comparison, weight=comparison.weight / 2)
        return [half, turned(half)]


def _ballast(one: LabelledList) -> LabelledList:
    return LabelledList(one.answers, tuple((float("nan"),) * len(row) for row in one.labels), 0.0)


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
