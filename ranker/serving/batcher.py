"""Requests of many clients, merged into the batches of one model and served fairly."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ranker.errors import RankerError
from ranker.ranking.tournament import ranked
from ranker.records import Group
from ranker.scoring.distinct import ReadCount, count_reads
from ranker.scoring.interruption import calling_between_passes
from ranker.scoring.protocol import GroupScores, Scorer
from ranker.serving.metrics import DEADLINE, ENGINE, REASONS, BatchFacts
from ranker.serving.speed import Speed, characters_read
from ranker.serving.turns import Turn, Turns

logger = logging.getLogger(__name__)

BATCH_ITEMS: Final = 256
"""Most groups of a batch; the pipeline cuts a batch into passes by tokens."""

BATCH_S: Final = 0.25
"""Seconds that a batch should take to compute. A group that takes longer is a batch of its own: a long one."""

FIRST_BATCH: Final = 16_000
LEAST_BATCH: Final = 4_000
"""Characters of a batch while the model's speed is not known, and at least: about one forward pass."""

LONG_LANES: Final = 4
"""Long batches that take turns; more of them wait."""

MIN_PARALLEL_ITEMS: Final = 8
"""Groups at which an idle lane starts while another computes; fewer groups wait, because small batches cost more."""

STRETCH: Final = 16
"""Times its own computation that a request may have to wait before it is refused."""

LATE: Final = "the request was not computed within request_timeout_s; send it again later, or a smaller one"


class RefusedError(RankerError):
    """Work that was refused, with the HTTP ``status`` and ``headers`` of the response and its ``cause`` in metrics."""

    status = 503
    cause: str = REASONS[503]

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.headers: Mapping[str, str] = {"Retry-After": str(math.ceil(retry_after))}


class OverloadedError(RefusedError):
    """Too much waits; it is computed in about ``retry_after`` seconds."""

    status = 429
    cause = REASONS[429]

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {math.ceil(retry_after)} s", retry_after)


class DeadlineError(RefusedError):
    """The deadline passed before the work was done."""

    cause = DEADLINE


class DrainingError(RefusedError):
    """The server is shutting down and takes no more work."""


class LaneError(RefusedError):
    """The engine broke down while it computed the work, as by a panic in native code."""

    cause = ENGINE


@dataclass(slots=True, eq=False)
class Work:
    """Groups of one request and the future of their results.

    ``deadline`` and ``since`` are in seconds of ``time.monotonic``; ``characters`` are those that each group's rows
    hold. ``left`` counts the groups that have no result yet.
    """

    groups: Sequence[Group]
    characters: Sequence[int]
    deadline: float
    since: float = field(default_factory=time.monotonic)
    future: Future[list[GroupScores]] = field(default_factory=Future)
    results: dict[int, GroupScores] = field(default_factory=dict)
    started: bool = False
    _settling: threading.Lock = field(default_factory=threading.Lock)

    def is_wanted(self) -> bool:
        """Whether somebody waits for the results; work past its deadline fails here."""
        if not self.future.done() and time.monotonic() > self.deadline:
            self.fail(DeadlineError(LATE))
        return not self.future.done()

    def add(self, indices: Sequence[int], results: Sequence[GroupScores]) -> None:
        """Keep the results of some groups; those of the last ones complete the future."""
        with self._settling:
            self.results.update(zip(indices, results, strict=True))
            is_whole = len(self.results) == len(self.groups)
            if is_whole and not self.future.done() and self.future.set_running_or_notify_cancel():
                self.future.set_result([self.results[index] for index in range(len(self.groups))])

    def fail(self, error: Exception) -> None:
        """Complete the future with an error, unless it is complete or cancelled."""
        with self._settling:
            if not self.future.done() and self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class _Share:
    """The groups of a work that wait in one queue, by their indices; ``characters`` are those of all of them."""

    work: Work
    indices: deque[int]
    characters: int = 0

    def __post_init__(self) -> None:
        self.characters = sum(self.work.characters[index] for index in self.indices)

    def take(self) -> int:
        """The next group's index, which no longer waits."""
        index = self.indices.popleft()
        self.characters -= self.work.characters[index]
        return index


_Batch = dict[Work, list[int]]
"""Indices of the groups of each work that are computed together."""


class _UnwantedError(Exception):
    """Nobody waits for the batch any more."""


class Batcher:
    """Threads that score the work in the queue, in batches of about ``BATCH_S`` seconds.

    A batch takes groups of all requests in turn, so a small request does not wait for the whole of a large one. While
    one batch is computed the next one gathers; an idle model does not wait for more work. A group that takes longer
    than a batch is computed in a lane for such ones, and lets the others go between its passes. Work whose future was
    cancelled, or whose deadline has passed, ends before the next batch or between two passes.

    Args:
        scorer: the model; only these threads call it. It must be thread-safe.
        queue_items: most groups in the queue; ``submit`` refuses more.
        queue_s: seconds that work may have to wait. Work that is large itself may wait ``STRETCH`` times what it takes.
        lanes: number of batches that compute at once. With two, one is computed while responses of the other are sent
            and new requests are read.
        note: called with the facts of every batch.

    Example:
        >>> batcher = Batcher(ranker.load("model.onnx").scorer)
        >>> batcher.submit([Group("Say hi", ("Hi!", "No."))], seconds=30).result()[0].scores
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        queue_items: int = 4096,
        queue_s: float = math.inf,
        lanes: int = 1,
        note: Callable[[BatchFacts], object] = lambda batch: None,
    ) -> None:
        self.scorer = scorer
        self._note = note
        self.queue_items = queue_items
        self.queue_s = queue_s
        self._short: deque[_Share] = deque()
        self._long: deque[_Share] = deque()
        self._items = 0
        self._idle = 0
        self._short_lanes = lanes
        self._long_passes = max(1, scorer.info.parallel_passes - 1)  # one place is left for small requests
        self._speed = Speed()
        self._computing: dict[object, int] = {}
        self._turns = Turns(lanes)
        self._draining = False
        self._changed = threading.Condition()
        kinds = [False] * lanes + [True] * LONG_LANES
        self._lanes = [
            threading.Thread(target=self._run, args=(is_long,), name=f"ranker-lane-{n}", daemon=True)
            for n, is_long in enumerate(kinds)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def queue_length(self) -> int:
        """Groups in the queue."""
        return self._items

    def refusal(self, characters: int) -> OverloadedError | None:
        """Why ``submit`` would refuse work of so many characters now."""
        with self._changed:
            return self._refusal(characters, 1)

    @property
    def alive(self) -> bool:
        """Whether work is accepted and all threads run."""
        return all(lane.is_alive() for lane in self._lanes) and not self._draining

    def submit(self, groups: Sequence[Group], *, seconds: float) -> Future[list[GroupScores]]:
        """Put groups in the queue; the future holds one result per group, in order.

        Cancel the future when the results are no longer needed. Unless they are there after ``seconds``, it fails with
        ``DeadlineError``.

        Raises:
            OverloadedError: they would wait too long, or do not fit in the queue.
            DrainingError: the server shuts down.
        """
        info = self.scorer.info
        work = Work(groups, [characters_read(group, info) for group in groups], time.monotonic() + seconds)
        with self._changed:
            if self._draining:
                raise DrainingError("shutting down; the server may be back soon, or another one takes over")
            refusal = self._refusal(sum(work.characters), len(groups))
            if refusal is not None:
                raise refusal
            most = self._batch_characters
            long = deque(index for index, characters in enumerate(work.characters) if characters > most)
            short = deque(index for index, characters in enumerate(work.characters) if characters <= most)
            for queue, indices in ((self._short, short), (self._long, long)):
                if indices:
                    queue.append(_Share(work, indices))
            self._items += len(groups)
            self._changed.notify_all()
        if not groups:
            work.add([], [])
        return work.future

    def drain(self, seconds: float) -> bool:
        """Refuse more work and finish the queue; False when that takes longer than ``seconds``."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for lane in self._lanes:
            lane.join(max(0.0, end - time.monotonic()))
        return not any(lane.is_alive() for lane in self._lanes)

    @property
    def _batch_characters(self) -> float:
        """Most characters of a batch."""
        speed = self._speed.characters_per_second
        return max(LEAST_BATCH, speed * BATCH_S) if speed else FIRST_BATCH

    def _refusal(self, characters: int, items: int) -> OverloadedError | None:
        if self._items and self._items + items > self.queue_items:
            return OverloadedError(max(1.0, self._wait(characters)))
        if self.queue_s == math.inf:
            return None
        wait = self._wait(characters)
        own_seconds = self._speed.seconds(characters)
        return OverloadedError(max(1.0, wait)) if wait > max(self.queue_s, STRETCH * own_seconds) else None

    def _wait(self, characters: int) -> float:
        """Estimated seconds that work of so many characters waits for others.

        Work is computed in turns, so of what waits only as much comes first as this work has itself.
        """
        waiting = [share.characters for queue in (self._short, self._long) for share in queue if _is_open(share)]
        before = sum(min(characters, other) for other in waiting) + sum(self._computing.values())
        return self._speed.seconds(before)

    def _run(self, is_long: bool) -> None:
        """A lane. What a batch raises never ends it, be it a panic of native code."""
        while True:
            batch: _Batch = {}
            try:
                batch = self._take(is_long)
                if not batch:
                    return
                self._compute(batch, is_long)
            except BaseException as error:
                logger.exception("a lane of the model broke down and goes on")
                for work in batch:
                    work.fail(_as_failure(error))

    def _compute(self, batch: _Batch, is_long: bool) -> None:
        live = {work: indices for work, indices in batch.items() if work.is_wanted()}
        if not live:
            return
        groups = [work.groups[index] for work, indices in live.items() for index in indices]
        characters = sum(work.characters[index] for work, indices in live.items() for index in indices)
        waited = [time.monotonic() - work.since for work in live if not work.started]
        for work in live:
            work.started = True
        try:
            with (
                self._turns.turn(is_long=is_long) as turn,
                self._speed.measured(characters) as watch,
                self._counted(min(characters, int(self._batch_characters))),
                count_reads() as reads,
                calling_between_passes(lambda: self._between(turn, live), self._long_passes if is_long else None),
            ):
                results = list(ranked(self.scorer, groups))
        except _UnwantedError:
            return
        except BaseException as error:  # one request must not fail the other requests
            if len(live) == 1:
                logger.debug("a request failed", exc_info=True)
                next(iter(live)).fail(_as_failure(error))
            else:
                for work, indices in live.items():
                    self._compute({work: indices}, is_long)
            return
        self._note(_facts(len(groups), watch.seconds, waited, reads))
        start = 0
        for work, indices in live.items():
            work.add(indices, results[start : start + len(indices)])
            start += len(indices)

    def _between(self, turn: Turn, batch: _Batch) -> None:
        """Between two passes: end what nobody waits for, and let others compute."""
        if not any([work.is_wanted() for work in batch]):
            raise _UnwantedError
        self._turns.pass_on(turn)

    @contextmanager
    def _counted(self, characters: int) -> Iterator[None]:
        """Within the block, what a batch computes counts among the work before others."""
        key = object()
        with self._changed:
            self._computing[key] = characters
        try:
            yield
        finally:
            with self._changed:
                del self._computing[key]

    def _take(self, is_long: bool) -> _Batch:
        """The next batch; empty when the queue is drained."""
        queue = self._long if is_long else self._short
        with self._changed:
            if not is_long:
                self._idle += 1
                self._changed.notify_all()
            while not queue or (not is_long and self._waits_for_more()):
                if self._draining and not queue:
                    return {}
                self._changed.wait()
            if not is_long:
                self._idle -= 1
            return self._next_batch(queue, is_long)

    def _waits_for_more(self) -> bool:
        """Whether an idle lane leaves the few groups that wait to the next batch of a lane that computes."""
        if self._idle == self._short_lanes:
            return False
        return sum(len(share.indices) for share in self._short) < MIN_PARALLEL_ITEMS

    def _next_batch(self, queue: deque[_Share], is_long: bool) -> _Batch:
        """Groups of all requests in turn, an equal share of each, until the batch is full."""
        most = self._batch_characters
        quantum = most / len(queue)
        batch: _Batch = {}
        count = filled = 0
        while queue and count < (1 if is_long else BATCH_ITEMS):
            share = queue.popleft()
            if not _is_open(share):
                self._items -= len(share.indices)
                continue
            if batch and filled + share.work.characters[share.indices[0]] > most:
                queue.appendleft(share)
                break
            turn = 0
            while share.indices and count < (1 if is_long else BATCH_ITEMS):
                index = share.take()
                batch.setdefault(share.work, []).append(index)
                turn += share.work.characters[index]
                count += 1
                if turn >= quantum:
                    break
            filled += turn
            if share.indices:
                queue.append(share)
        self._items -= count
        return batch


def _is_open(share: _Share) -> bool:
    return not share.work.future.done()


def _facts(items: int, seconds: float, waited: Sequence[float], reads: ReadCount) -> BatchFacts:
    return BatchFacts(items, seconds, waited, reads.asked, reads.read, reads.tokens, reads.padding)


def _as_failure(error: BaseException) -> Exception:
    """An exception that may reach a request's handler: one that ends threads may not."""
    if isinstance(error, Exception):
        return error
    return LaneError(f"the engine broke down ({type(error).__name__}: {error}); send the request again")
