"""A model with its queue and its limits; every route asks it for scores."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from fastapi import HTTPException, Request

import ranker
from ranker.errors import RankerError
from ranker.records import Group
from ranker.scoring.buckets import length_bucket, text_of_length
from ranker.scoring.protocol import GroupScores, Scorer
from ranker.serving.batcher import LATE, Batcher, DeadlineError
from ranker.serving.limits import Limits, UnprocessableError
from ranker.serving.metrics import Metrics

logger = logging.getLogger(__name__)

PATIENCE: Final = 0.25
"""Seconds that a request waits before the server watches for a disconnect of its client."""

LANES: Final = 2
"""Threads that call a scorer with parallel passes; measured against 1 and 3."""

COMPARES: Final = (
    "this model compares answers to one prompt and got a single one; send at least two answers to every prompt "
    "(/v1/score, /rerank, or equal prompts in /get_reward and /score), or serve a pointwise model"
)


class Server:
    """Scores the groups of all requests with one model.

    Args:
        scorer: the model.
        name: the model's name in responses.
        limits: of a request and of the queue.

    Example:
        >>> server = Server(ranker.load("model.onnx").scorer, "model.onnx", Limits())
        >>> app = application(server, Keys([]))
    """

    def __init__(self, scorer: Scorer, name: str, limits: Limits) -> None:
        self.scorer = scorer
        self.name = name
        self.limits = limits
        self.metrics = Metrics()
        self.batcher = Batcher(
            scorer,
            queue_items=limits.queue_items,
            queue_s=limits.queue_seconds,
            lanes=LANES if scorer.info.parallel_passes > 1 else 1,
            note=self.metrics.note_batch,
        )
        self.metrics.watch(lambda: self.batcher.queue_length)
        self.metrics.describe(name, scorer.info, ranker.__version__)
        self.started = time.time()
        self.has_page = False
        self._warm = threading.Event()
        self._warm.set()

    @property
    def ready(self) -> bool:
        """Whether requests are accepted and the model is warm."""
        return self.batcher.alive and self._warm.is_set()

    def warm_up(self) -> None:
        """Score a row of every length in the background; ``ready`` is false until it is done.

        The lengths are those of ``ranker.scoring.buckets``, from the longest on. Kernels that plan for a shape have
        planned when the first request comes.
        """
        self._warm.clear()
        threading.Thread(target=self._score_every_length, name="ranker-warm-up", daemon=True).start()

    def _score_every_length(self) -> None:
        longest = self.scorer.info.max_length
        lengths = sorted({length_bucket(length) for length in range(1, longest + 1)}, reverse=True)
        try:
            for length in lengths:
                text = text_of_length(self.scorer, "word ", length)
                self.batcher.submit([Group("", (text, text))], seconds=math.inf).result()
        except RankerError as error:  # the server is stopped, or refuses more; requests warm it up instead
            logger.warning("the warm-up ended early: %s", error)
        finally:
            self._warm.set()

    async def score(self, request: Request, groups: Sequence[Group], *, alone: bool = False) -> list[GroupScores]:
        """One result per group, in order, computed after the groups in the queue.

        The groups are dropped when the request's client disconnects.

        Args:
            request: the request, whose client is watched.
            groups: the groups to score.
            alone: whether a group of one answer is refused for a model whose scores are relative.

        Raises:
            UnprocessableError: a request beyond the limits, or single answers for a model that compares.
            HTTPException: 499 for a client that has disconnected.
            OverloadedError, DeadlineError, DrainingError: as in ``Batcher``.
        """
        self.check(groups)
        if alone and self.scorer.info.scores_are_relative:
            for number, group in enumerate(groups):
                if len(group.candidates) == 1:
                    raise UnprocessableError(["items", number], COMPARES)
        work = self.batcher.submit(groups, seconds=self.limits.request_timeout_s)
        self.metrics.items.inc(len(groups))
        future = asyncio.wrap_future(work)
        patience = min(PATIENCE, self.limits.request_timeout_s)
        await asyncio.wait({future}, timeout=patience)
        if not future.done():
            # The body was read already, so the next message can only be a disconnect.
            disconnect = asyncio.ensure_future(request.receive())
            either: set[asyncio.Future[Any]] = {future, disconnect}
            rest = self.limits.request_timeout_s - patience
            try:
                await asyncio.wait(either, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                client_left = disconnect.done()
            finally:
                disconnect.cancel()
            if not future.done() and work.cancel():  # also where it is computed: that ends between two passes
                raise HTTPException(499, "the client has gone") if client_left else DeadlineError(LATE)
        results = await future
        cut, prompts_cut = getattr(request.state, "cut", (0, 0))
        cut += sum(int(result.truncated.sum()) for result in results)
        request.state.cut = cut, prompts_cut + sum(result.prompt_truncated for result in results)
        self.metrics.errors.inc(sum(result.error is not None for result in results))
        return results

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse groups beyond the limits.

        Raises:
            UnprocessableError: naming the item.
        """
        limits = self.limits
        if len(groups) > limits.max_client_batch_size:
            raise UnprocessableError(
                ["items"], f"expected at most {limits.max_client_batch_size} items, got {len(groups)}"
            )
        readings = 0
        for number, group in enumerate(groups):
            count = len(group.candidates)
            readings += count if self.scorer.info.order_free else count * (count - 1)
            if count > limits.candidates:
                raise UnprocessableError(
                    ["items", number], f"expected at most {limits.candidates} candidates, got {count}"
                )
            texts = [group.prompt] if isinstance(group.prompt, str) else [m.content for m in group.prompt]
            longest = max(map(len, [*texts, *group.candidates]), default=0)
            if longest > limits.characters:
                raise UnprocessableError(
                    ["items", number], f"expected texts of at most {limits.characters} characters, got {longest}"
                )
        if readings > limits.readings:
            raise UnprocessableError(
                ["items"],
                f"expected at most {limits.readings} readings of the model (candidates, or ordered pairs of them where "
                f"it reads pairs), got {readings}",
            )
