"""Requests of many clients, merged into the batches of one model."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from ranker.errors import RankerError
from ranker.ranking.tournament import ranked
from ranker.records import Group
from ranker.scoring.distinct import count_reads
from ranker.scoring.protocol import GroupScores, Scorer
from ranker.serving.metrics import BatchFacts

BATCH_ITEMS: Final = 256
"""Most groups of a batch; the pipeline cuts a batch into passes by tokens."""

MIN_PARALLEL_ITEMS: Final = 8
"""Groups at which an idle lane starts while another computes; fewer groups wait, because small batches cost more."""

LATE: Final = "the deadline passed while the request was waiting"


class RefusedError(RankerError):
    """Work that was refused, with the HTTP ``status`` and ``headers`` of the response."""

    status = 503
    headers: Mapping[str, str] = {}


class OverloadedError(RefusedError):
    """The queue is full, and holds work for about ``retry_after`` seconds."""

    status = 429

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")
        self.headers = {"Retry-After": str(math.ceil(retry_after))}


class DeadlineError(RefusedError):
    """The deadline passed before the work was started."""

    status = 504


class DrainingError(RefusedError):
    """The server is shutting down and takes no more work."""


@dataclass(slots=True)
class Work:
    """Groups of one request and the future of their results.

    ``deadline`` and ``since`` are in seconds of ``time.monotonic``. Work with a cancelled future is dropped.
    """

    groups: Sequence[Group]
    deadline: float
    since: float = field(default_factory=time.monotonic)
    future: Future[list[GroupScores]] = field(default_factory=Future)


class Batcher:
    """Threads that score the work in the queue, in batches of up to ``BATCH_ITEMS`` groups.

    While one batch is computed the next one gathers; an idle model does not wait for more work. Work whose future was
    cancelled, or whose deadline has passed, is dropped before it is scored.

    Args:
        scorer: the model; only these threads call it.
        queue_items: most groups in the queue; ``submit`` refuses more.
        lanes: number of threads. With two, one batch is computed while responses of the other are sent and new requests
            are read; the scorer must be thread-safe.
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
        lanes: int = 1,
        note: Callable[[BatchFacts], object] = lambda batch: None,
    ) -> None:
        self.scorer = scorer
        self._note = note
        self.queue_items = queue_items
        self._queue: deque[Work] = deque()
        self._items = 0
        self._idle = 0
        self._rate = 0.0
        self._draining = False
        self._changed = threading.Condition()
        self._lanes = [threading.Thread(target=self._run, name=f"ranker-lane-{n}", daemon=True) for n in range(lanes)]
        for lane in self._lanes:
            lane.start()

    @property
    def queue_length(self) -> int:
        """Groups in the queue."""
        return self._items

    @property
    def full(self) -> bool:
        """Whether ``submit`` would refuse more work."""
        return self._items >= self.queue_items

    @property
    def seconds(self) -> float:
        """Estimated seconds until the queue is empty; at least one."""
        return max(1.0, self._items / self._rate if self._rate else 1.0)

    @property
    def alive(self) -> bool:
        """Whether work is accepted and all threads run."""
        return all(lane.is_alive() for lane in self._lanes) and not self._draining

    def submit(self, groups: Sequence[Group], *, seconds: float) -> Future[list[GroupScores]]:
        """Put groups in the queue; the future holds one result per group, in order.

        Cancel the future when the results are no longer needed. After ``seconds`` in the queue it fails with
        ``DeadlineError``.

        Raises:
            OverloadedError: they do not fit in the queue.
            DrainingError: the server shuts down.
        """
        work = Work(groups, time.monotonic() + seconds)
        with self._changed:
            if self._draining:
                raise DrainingError("shutting down")
            if self._items and self._items + len(groups) > self.queue_items:
                raise OverloadedError(self.seconds)
            self._queue.append(work)
            self._items += len(groups)
            self._changed.notify()
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

    def _run(self) -> None:
        while batch := self._take():
            started = time.monotonic()
            live = [work for work in batch if self._wanted(work, started)]
            groups = [group for work in live for group in work.groups]
            try:
                with count_reads() as reads:
                    results = list(ranked(self.scorer, groups)) if groups else []
            except Exception:  # one request must not fail the other requests
                for work in live:
                    self._score_alone(work)
                continue
            if groups:
                seconds = time.monotonic() - started
                self._rate = len(self._lanes) * len(groups) / max(seconds, 1e-6)
                waited = [started - work.since for work in live]
                counts = (reads.asked, reads.read, reads.tokens, reads.padding)
                self._note(BatchFacts(len(groups), seconds, waited, *counts))
            start = 0
            for work in live:
                work.future.set_result(results[start : start + len(work.groups)])
                start += len(work.groups)

    def _score_alone(self, work: Work) -> None:
        try:
            work.future.set_result(list(ranked(self.scorer, work.groups)))
        except Exception as error:  # what the engine raises reaches its client, and the thread goes on
            work.future.set_exception(error)

    def _take(self) -> list[Work]:
        """The work of the next batch; empty when the queue is drained."""
        with self._changed:
            self._idle += 1
            self._changed.notify()
            while not self._queue or (self._idle < len(self._lanes) and self._items < MIN_PARALLEL_ITEMS):
                if self._draining and not self._queue:
                    return []
                self._changed.wait()
            self._idle -= 1
            batch: list[Work] = []
            count = 0
            while self._queue and (not batch or count + len(self._queue[0].groups) <= BATCH_ITEMS):
                work = self._queue.popleft()
                batch.append(work)
                count += len(work.groups)
            self._items -= count
            return batch

    @staticmethod
    def _wanted(work: Work, now: float) -> bool:
        if not work.future.set_running_or_notify_cancel():
            return False
        if now > work.deadline:
            work.future.set_exception(DeadlineError(LATE))
            return False
        return True
