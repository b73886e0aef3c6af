"""Scores of groups by forward passes: slices of bounded size, passes in parallel, retries by halving."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranker.layouts import PackedGroup
from ranker.layouts.layout import Arrays
from ranker.layouts.prefix_sharing import split_row
from ranker.records import Group
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Floats, GroupScores, failed
from ranker.scoring.token_budget import TokenBudget

S = TypeVar("S")
T = TypeVar("T")
Forward = Callable[[Arrays], Floats]
"""From ``collate``'s arrays to logits: (rows, candidates, outputs)."""

CHUNK_GROUPS: Final = 512
"""Groups that are tokenised together."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to run passes: ``forward``, from ``workers`` threads at once.

    ``tight`` says that passes are cheap, so that a batch ends where more padding would cost what a pass does.
    """

    forward: Forward
    workers: int = 1
    tight: bool = False


def score_groups(
    pipeline: TextPipeline,
    groups: Sequence[Group],
    forward: Forward,
    max_tokens_per_forward: int | TokenBudget,
    *,
    preserve_order: bool = False,
    retry: bool = True,
    parallel: Engine | None = None,
) -> list[GroupScores]:
    """Score groups with ``forward`` in batches of at most ``max_tokens_per_forward`` padded tokens.

    Order-free layouts read each distinct candidate of a group once, in sorted order, so scores are bitwise the same
    whatever order the candidates come in; ``preserve_order`` reads them as they come, which is how the model itself is
    measured. Layouts that read ordered pairs read every pair in both orders; their scores are the least-squares
    solution of the order-averaged logits, ``s_i - s_j`` for two candidates being ``(logit(i, j) - logit(j, i)) / 2``.
    SteamSHP reads a lone candidate against an empty one: ``(logit(i, empty) - logit(empty, i)) / 2``. A pipeline
    without ``average_orders`` takes the one logit of a pair for both.

    Memory is bounded: groups are tokenised and packed in slices, each in a thread while the one before it is computed.
    A batch that fails is halved; a group that fails on its own gets an error. Without ``retry`` a failure is raised.

    Args:
        pipeline: the model's text path.
        groups: what is scored.
        forward: runs one pass.
        max_tokens_per_forward: most padded tokens of a pass, or the budget that finds it.
        preserve_order: see above.
        retry: see above.
        parallel: runs several passes at once, used unless there is too little work for that.

    Returns:
        One result per group, in order.
    """
    budget = (
        TokenBudget((max_tokens_per_forward,)) if isinstance(max_tokens_per_forward, int) else max_tokens_per_forward
    )
    as_they_come = preserve_order or not pipeline.layout.order_free
    canonical = list(groups) if as_they_come else [Group(g.prompt, tuple(sorted(set(g.candidates)))) for g in groups]
    results: list[GroupScores] = []
    slices = _slices(pipeline, canonical, budget)
    engine: Engine | None = None
    # Closed here, also by an interruption: a thread that computes while Python shuts down aborts the process.
    with closing(slices if len(canonical) <= CHUNK_GROUPS else prefetched(slices)) as packed_slices:
        for packed, filled in packed_slices:
            start, end = len(results), len(results) + len(packed)
            units = batching.units(packed)
            if engine is None:  # the first slice decides, so that the last one, which may be short, changes nothing
                enough = parallel is not None and 2 * len(units) > parallel.workers
                engine = parallel if parallel is not None and enough else Engine(forward)
            with budget.timed(filled) as tokens:
                logits, errors = _Passes(pipeline, engine, tokens, retry).run(packed, units)
            parts = zip(groups[start:end], canonical[start:end], packed, logits, errors, strict=True)
            results += [_result(pipeline, *part) for part in parts]
    return results


def _slices(
    pipeline: TextPipeline, groups: Sequence[Group], budget: TokenBudget
) -> Generator[tuple[list[PackedGroup], int]]:
    """Consecutive groups of about ``budget.slice_tokens`` padded tokens, and how many tokens those are."""
    part: list[PackedGroup] = []
    filled = 0
    for start in range(0, len(groups), CHUNK_GROUPS):
        for tokens in pipeline.tokenize(groups[start : start + CHUNK_GROUPS]):
            part.append(pipeline.pack(tokens))
            filled += pipeline.padded_tokens(tokens)
            if filled >= budget.slice_tokens:
                yield part, filled
                part, filled = [], 0
    if part:
        yield part, filled


@dataclass(frozen=True, slots=True)
class _Passes:
    """The passes of one slice."""

    pipeline: TextPipeline
    engine: Engine
    max_tokens_per_forward: int
    retry: bool

    def run(
        self, packed: Sequence[PackedGroup], units: Sequence[batching.Unit]
    ) -> tuple[list[NDArray[np.float32]], list[str | None]]:
        """Per group (N,) scores or, of ordered pairs, a (N, N) matrix of directed logits, and why it failed."""
        order_free = self.pipeline.layout.order_free
        counts = [len(group.truncated) + group.with_reference for group in packed]
        out = [np.zeros((n,) if order_free else (n, n), np.float32) for n in counts]
        errors: list[str | None] = [None] * len(packed)
        workers = self.engine.workers
        tight = self.engine.tight
        batches = list(batching.batches(units, self.max_tokens_per_forward, workers, tight=tight))[::-1]
        while batches:
            smaller: list[list[batching.Unit]] = []
            with closing(parallel_map(self._forward, batches, workers)) as computed:
                for batch, logits in zip(batches, computed, strict=True):
                    if not isinstance(logits, Exception):
                        self._place(batch, logits, out)
                    elif len(batch) > 1:
                        smaller += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                    elif self.pipeline.prefix_sharing and len(batch[0].rows[0].candidates) > 1:
                        smaller += [[batching.Unit(batch[0].group, (row,))] for row in split_row(batch[0].rows[0])]
                    else:
                        reason = (str(logits).strip() or type(logits).__name__).splitlines()[-1]
                        errors[batch[0].group] = f"the model failed on this row: {reason:.200}"
            batches = smaller
            workers = 1  # what failed may have all the memory
        return out, errors

    def _forward(self, batch: Sequence[batching.Unit]) -> Floats | Exception:
        layout = self.pipeline.layout
        try:
            logits: Floats = layout.reduce(self.engine.forward(batching.collate(layout, batch)))
        except Exception as error:  # whatever the engine raises, most often for want of memory
            if not self.retry:
                raise
            return error
        return logits

    def _place(self, batch: Sequence[batching.Unit], logits: Floats, out: Sequence[NDArray[np.float32]]) -> None:
        """Write the outputs of a pass, a row each, to where their candidates are."""
        outputs = iter(logits)
        for unit in batch:
            for row in unit.rows:
                values = next(outputs)
                if self.pipeline.layout.order_free:
                    out[unit.group][list(row.candidates)] = values[: len(row.candidates)]
                else:
                    i, j = row.candidates
                    out[unit.group][i, j] = values[0] - values[1]
                    if not self.pipeline.average_orders:
                        out[unit.group][j, i] = -out[unit.group][i, j]


def _result(
    pipeline: TextPipeline,
    group: Group,
    canonical: Group,
    packed: PackedGroup,
    logits: NDArray[np.float32],
    error: str | None,
) -> GroupScores:
    if error is not None:
        return failed(group, error)
    if not np.isfinite(logits).all():
        return failed(group, "the model gave NaN or infinity for this row; its weights or precision are at fault")
    if pipeline.layout.order_free:
        place = {candidate: i for i, candidate in enumerate(canonical.candidates)}
        order = np.array([place[candidate] for candidate in group.candidates], np.intp)
        return GroupScores(logits[order], packed.truncated[order], packed.prompt_truncated)
    flips = int((np.triu(np.sign(logits) + np.sign(logits.T), 1) != 0).sum())
    scores = ((logits - logits.T) / 2).sum(axis=1) / max(1, len(logits))
    if packed.with_reference:
        scores = scores[:-1] - scores[-1]
        flips = 0
    return GroupScores(scores, packed.truncated, packed.prompt_truncated, order_flips=flips)


def parallel_map(run: Callable[[S], T], items: Sequence[S], workers: int) -> Generator[T]:
    """``run`` of each item in order, computed by ``workers`` threads, few items ahead so that they end soon."""
    if workers == 1 or len(items) == 1:
        yield from map(run, items)
        return
    threads = ThreadPoolExecutor(workers)
    running: deque[Future[T]] = deque()
    try:
        for item in items:
            running.append(threads.submit(run, item))
            if len(running) == 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def prefetched(items: Iterator[T]) -> Generator[T]:
    """The items of ``items``, each computed in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = thread.submit(next, items, None)
            yield item
