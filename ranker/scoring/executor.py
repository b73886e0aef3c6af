"""Scores of groups by forward passes: slices of bounded size, passes in parallel, retries by halving."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ranker import collector
from ranker.layouts import Layout, PackedGroup
from ranker.layouts.layout import Arrays
from ranker.layouts.prefix_sharing import split_row
from ranker.progress import computed
from ranker.records import Group
from ranker.scoring import batching, buckets
from ranker.scoring.distinct import (
    Place,
    ReadCount,
    ReadPlan,
    add_reads,
    as_they_come,
    counting,
    note,
    once,
    once_per_group,
)
from ranker.scoring.interruption import between_passes, passes_at_once
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Floats, GroupScores, failed
from ranker.scoring.token_budget import TokenBudget, tokens_now

S = TypeVar("S")
T = TypeVar("T")
Forward = Callable[[Arrays], Floats]
"""From ``collate``'s arrays to logits: (rows, candidates, outputs)."""

logger = logging.getLogger(__name__)
_warned: WeakSet[TextPipeline] = WeakSet()
"""Models of which ``_warn_of_special_text`` has warned."""

_expected: ContextVar[bool] = ContextVar("expected", default=False)

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
    length_buckets: bool = False,
    rounding: batching.Rounding = batching.AS_THEY_ARE,
) -> list[GroupScores]:
    """Score groups with ``forward`` in batches of at most ``max_tokens_per_forward`` padded tokens.

    Where scores do not depend on the company, each distinct (prompt, candidate) of the call is read once; other
    order-free layouts read each distinct candidate of a group once. Both read in sorted order, so scores are bitwise
    the same whatever order the candidates come in; ``preserve_order`` reads them as they come, which is how the model
    itself is measured. Layouts that read ordered pairs read every pair in both orders; their scores are the
    least-squares solution of the order-averaged logits, ``s_i - s_j`` for two candidates being ``(logit(i, j) -
    logit(j, i)) / 2``. SteamSHP reads a lone candidate against an empty one: ``(logit(i, empty) - logit(empty, i)) /
    2``. A pipeline without ``average_orders`` takes the one logit of a pair for both.

    Memory is bounded: groups are tokenised and packed in slices, each in a thread while the one before it is computed.
    A batch that fails is halved; a group that fails on its own gets an error. Without ``retry`` a failure is raised.

    Args:
        pipeline: the model's text path.
        groups: what is scored.
        forward: runs one pass.
        max_tokens_per_forward: most padded tokens of a pass, or the budget that finds it, unless
            ``fixed_tokens`` says it.
        preserve_order: see above.
        retry: see above.
        parallel: runs several passes at once, used unless there is too little work for that.
        length_buckets: whether passes are padded to a few shapes (``ranker.scoring.buckets``).
        rounding: to which lengths passes are padded, and which rows may share one.

    Returns:
        One result per group, in order.
    """
    with collector.paused():
        tokens = tokens_now() or max_tokens_per_forward
        budget = TokenBudget((tokens,)) if isinstance(tokens, int) else tokens
        return _scored(
            pipeline,
            groups,
            forward,
            budget,
            preserve_order=preserve_order,
            retry=retry,
            parallel=parallel,
            length_buckets=length_buckets,
            rounding=rounding,
        )


def _scored(
    pipeline: TextPipeline,
    groups: Sequence[Group],
    forward: Forward,
    budget: TokenBudget,
    *,
    preserve_order: bool,
    retry: bool,
    parallel: Engine | None,
    length_buckets: bool,
    rounding: batching.Rounding,
) -> list[GroupScores]:
    """See ``score_groups``."""
    plan = _read_plan(pipeline.layout, groups, preserve_order)
    note(plan)
    parts: list[_Part] = []
    share = len(groups) / max(1, len(plan.groups))
    slices = _slices(pipeline, plan.groups, budget)
    engine: Engine | None = None
    # Closed here, also by an interruption: a thread that computes while Python shuts down aborts the process.
    with closing(slices if len(plan.groups) <= CHUNK_GROUPS else prefetched(slices)) as packed_slices:
        for packed, filled in packed_slices:
            units = batching.units(packed)
            if engine is None:  # the first slice decides, so that the last one, which may be short, changes nothing
                enough = parallel is not None and 2 * len(units) > parallel.workers
                engine = parallel if parallel is not None and enough else Engine(forward)
            with budget.timed(filled) as tokens:
                passes = _Passes(pipeline, engine, tokens, retry, length_buckets, rounding, share)
                parts += passes.run(packed, units)
            if passes.too_large:
                budget.lower(min(passes.too_large))
            collector.collect()
    _warn_of_special_text(pipeline, parts)
    if not pipeline.layout.order_free:
        return [_of_pairs(*part) for part in zip(groups, parts, strict=True)]
    return [_of_places(group, parts, places) for group, places in zip(groups, plan.places, strict=True)]


@contextmanager
def special_text_expected() -> Iterator[None]:
    """Within the block, texts spell special tokens on purpose: no warning."""
    token = _expected.set(True)
    try:
        yield
    finally:
        _expected.reset(token)


def _warn_of_special_text(pipeline: TextPipeline, parts: Sequence[_Part]) -> None:
    """Say once per model that texts spell its special tokens, and what that means."""
    if pipeline in _warned or _expected.get() or not any(part.special_text for part in parts):
        return
    _warned.add(pipeline)
    logger.warning(
        "some texts spell a special token of the model, such as its end of turn; they were read as plain characters, "
        "so they cannot end a turn (see special_text of their results; this warning is shown once)"
    )


def _read_plan(layout: Layout, groups: Sequence[Group], preserve_order: bool) -> ReadPlan:
    if preserve_order or not layout.order_free:
        return as_they_come(groups)
    return once_per_group(groups) if layout.scores_are_relative else once(groups)


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
class _Part:
    """What came out of a group that is read.

    ``logits`` are (N,) scores or, of ordered pairs, a (N, N) matrix of directed logits; ``errors`` say of candidates
    why they failed.
    """

    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    prompts_truncated: NDArray[np.bool_]
    errors: dict[int, str]
    with_reference: bool
    special_text: bool
    is_plain: bool
    """Whether no prompt was cut, no text is special and nothing failed, and the logits are scores and finite."""


@dataclass(frozen=True, slots=True)
class _Passes:
    """The passes of one slice."""

    pipeline: TextPipeline
    engine: Engine
    max_tokens_per_forward: int
    retry: bool
    length_buckets: bool = False
    rounding: batching.Rounding = batching.AS_THEY_ARE
    share: float = 1.0
    """Groups that were asked for, over those that are read."""
    too_large: list[int] = field(default_factory=list)
    """Padded tokens of the passes that ran out of memory, and could be halved."""

    def run(self, packed: Sequence[PackedGroup], units: Sequence[batching.Unit]) -> list[_Part]:
        """The results of the groups that are read."""
        order_free = self.pipeline.layout.order_free
        counts = [len(group.truncated) + group.with_reference for group in packed]
        ends = list(accumulate((n if order_free else n * n for n in counts), initial=0))
        together = np.zeros(ends[-1], np.float32)
        out = [together[start:end] for start, end in pairwise(ends)]
        if not order_free:
            out = [logits.reshape(n, n) for logits, n in zip(out, counts, strict=True)]
        errors = [dict(group.refused) for group in packed]
        workers = passes_at_once(self.engine.workers)
        batches = self._batches(units)[::-1]
        counted = counting()
        while batches:
            smaller: list[list[batching.Unit]] = []
            with closing(parallel_map(self._forward, batches, workers)) as outputs:
                for batch, logits in zip(batches, outputs, strict=True):
                    between_passes()
                    if not isinstance(logits, Exception):
                        self._place(batch, logits, out)
                        if counted:
                            _count_tokens(batch)
                        computed(self.share * len(packed) * len(batch) / len(units))
                        continue
                    if len(batch) > 1 and out_of_memory(logits):
                        self.too_large.append(batching.padded_tokens(batch))
                    if len(batch) > 1:
                        smaller += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                    elif self.pipeline.prefix_sharing and len(batch[0].rows[0].candidates) > 1:
                        smaller += [[batching.Unit(batch[0].group, (row,))] for row in split_row(batch[0].rows[0])]
                    else:
                        reason = (str(logits).strip() or type(logits).__name__).splitlines()[-1]
                        failing = {candidate for row in batch[0].rows for candidate in row.candidates}
                        errors[batch[0].group] |= dict.fromkeys(failing, f"the model failed on this row: {reason:.200}")
            batches = smaller
            workers = 1  # what failed may have all the memory
        if order_free:
            _tie_equal_rows(packed, out)
        plain = order_free and bool(np.isfinite(together).all())
        return [
            _Part(
                logits,
                group.truncated,
                group.prompts_truncated,
                failed_candidates,
                group.with_reference,
                group.special_text,
                is_plain=plain and not (failed_candidates or group.special_text or group.prompt_truncated),
            )
            for logits, group, failed_candidates in zip(out, packed, errors, strict=True)
        ]

    def _batches(self, units: Sequence[batching.Unit]) -> list[list[batching.Unit]]:
        budget, engine = self.max_tokens_per_forward, self.engine
        if self.length_buckets:
            lengths, rows = [unit.length for unit in units], [len(unit.rows) for unit in units]
            return [[units[i] for i in indices] for indices in buckets.plan(lengths, rows, budget)]
        return list(batching.batches(units, budget, engine.workers, tight=engine.tight, rounding=self.rounding))

    def _forward(self, batch: Sequence[batching.Unit]) -> Floats | Exception:
        layout = self.pipeline.layout
        try:
            arrays = batching.collate(layout, batch, self.rounding)
            rows = len(arrays["input_ids"])
            if self.length_buckets:
                arrays = buckets.padded(arrays, layout, self.max_tokens_per_forward)
            outputs = self.engine.forward(arrays)
            if outputs.ndim != 3 or len(outputs) < rows or outputs.dtype.kind != "f":
                raise ValueError(f"expected numbers (rows, candidates, outputs) of {rows} rows, got {outputs.shape}")
            logits: Floats = layout.reduce(outputs[:rows])
            most = max(len(row.candidates) for unit in batch for row in unit.rows)
            if logits.ndim != 2 or logits.shape[1] < most:
                raise ValueError(f"expected scores of {most} candidates a row, got {outputs.shape}")
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
                if len(row.candidates) == 1:
                    out[unit.group][row.candidates[0]] = values[0]
                elif self.pipeline.layout.order_free:
                    out[unit.group][list(row.candidates)] = values[: len(row.candidates)]
                else:
                    i, j = row.candidates
                    out[unit.group][i, j] = values[0] - values[1]
                    if not self.pipeline.average_orders:
                        out[unit.group][j, i] = -out[unit.group][i, j]


def _tie_equal_rows(packed: Sequence[PackedGroup], out: Sequence[NDArray[np.float32]]) -> None:
    """Give candidates of a group that are the same tokens the same score, as an uncased model reads "Yes" and "yes".

    Two such rows of a pass may differ in the last bits.
    """
    for group, scores in zip(packed, out, strict=True):
        first: dict[bytes, int] = {}
        for row in group.rows if len(group.rows) > 1 else ():
            if len(row.candidates) == 1:
                scores[row.candidates[0]] = scores[first.setdefault(row.ids.tobytes(), row.candidates[0])]


def _count_tokens(batch: Sequence[batching.Unit]) -> None:
    """Add the tokens of a pass to the counts."""
    tokens = sum(len(row.ids) for unit in batch for row in unit.rows)
    add_reads(ReadCount(tokens=tokens, padding=batching.padded_tokens(batch) - tokens))


OUT_OF_MEMORY: Final = ("out of memory", "failed to allocate memory", "bad allocation", "can't allocate memory")
"""What torch, onnxruntime and their allocators say."""


def out_of_memory(error: Exception) -> bool:
    """Whether a forward pass failed for want of memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


NOT_FINITE: Final = "the model gave NaN or infinity for this row; its weights or precision are at fault"


def _of_places(group: Group, parts: Sequence[_Part], places: Sequence[Place]) -> GroupScores:
    """The result of a group whose candidates were read at ``places``."""
    first = parts[places[0][0]] if places else None
    if first is not None and first.is_plain and len(places) == len(first.logits) and _is_whole(places):
        return GroupScores(first.logits.copy(), first.truncated.copy())
    for part, candidate in places:
        if candidate in parts[part].errors:
            return failed(group, parts[part].errors[candidate])
    scores = np.array([parts[part].logits[candidate] for part, candidate in places], np.float32)
    if not np.isfinite(scores).all():
        return failed(group, NOT_FINITE)
    truncated = np.array([parts[part].truncated[candidate] for part, candidate in places], np.bool_)
    return GroupScores(
        scores,
        truncated,
        any(bool(parts[part].prompts_truncated[i]) for part, i in places),
        special_text=any(parts[part].special_text for part, _ in places),
    )


def _is_whole(places: Sequence[Place]) -> bool:
    """Whether the places are those of one part, in order."""
    part = places[0][0]
    return all(place == (part, number) for number, place in enumerate(places))


def _of_pairs(group: Group, part: _Part) -> GroupScores:
    """The result of a group that was read in ordered pairs."""
    if part.errors:
        return failed(group, next(iter(part.errors.values())))
    logits = part.logits
    if not np.isfinite(logits).all():
        return failed(group, NOT_FINITE)
    flips = int((np.triu(np.sign(logits) + np.sign(logits.T), 1) != 0).sum())
    scores = ((logits - logits.T) / 2).sum(axis=1) / max(1, len(logits))
    if part.with_reference:
        scores = scores[:-1] - scores[-1]
        flips = 0
    return GroupScores(
        scores,
        part.truncated,
        bool(part.prompts_truncated.any()),
        order_flips=flips,
        special_text=part.special_text,
    )


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


def prefetched(items: Iterator[T], ahead: int = 1) -> Generator[T]:
    """The items of ``items``, ``ahead`` of them computed in a thread while the one before them is used."""
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, items, None) for _ in range(ahead))
        while (item := pending.popleft().result()) is not None:
            pending.append(thread.submit(next, items, None))
            yield item
