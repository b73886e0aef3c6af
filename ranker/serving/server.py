"""A model, its queue and its limits: what every route asks for scores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from ranker.extras import require
from ranker.records import Group
from ranker.scorer import GroupScores, Scorer
from ranker.serving.batcher import Batcher
from ranker.serving.limits import Limits, UnprocessableError
from ranker.serving.metrics import Metrics

LOOK: Final = 0.25
"""Seconds between two looks at whether a waiting client is still there."""

fastapi = require("fastapi")
Request = fastapi.Request


class Server:
    """Takes groups of all requests to one model.

    Args:
        scorer: the model.
        name: what clients are told it is called.
        limits: of a request and of the queue.
        facts: what ``/info`` says besides.
    """

    def __init__(self, scorer: Scorer, name: str, limits: Limits, facts: dict[str, Any]) -> None:
        self.scorer, self.name, self.limits, self.facts = scorer, name, limits, facts
        self.metrics = Metrics()
        self.batcher = Batcher(scorer, queue_items=limits.queue_items)
        self.metrics.watch(lambda: self.batcher.waiting)

    async def score(self, request: Any, groups: Sequence[Group]) -> list[GroupScores]:
        """Results of groups, when their turn comes; a client that has gone is not worked for.

        Raises:
            UnprocessableError: a request past the limits.
            HTTPException: 499 for a client that has gone.
            OverloadedError, DeadlineError, DrainingError: as in ``Batcher``.
        """
        self.check(groups)
        self.metrics.items.inc(len(groups))
        waiting = self.batcher.submit(groups, seconds=self.limits.seconds)
        future = asyncio.wrap_future(waiting)
        while not (await asyncio.wait({future}, timeout=LOOK))[0]:
            if await request.is_disconnected() and waiting.cancel():
                raise fastapi.HTTPException(499, "the client has gone")
        results = future.result()
        self.metrics.errors.inc(sum(result.error is not None for result in results))
        return results

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse what is past the limits.

        Raises:
            UnprocessableError: naming the item.
        """
        limits = self.limits
        if len(groups) > limits.items:
            raise UnprocessableError(["items"], f"expected at most {limits.items} items, got {len(groups)}")
        for number, group in enumerate(groups):
            count = len(group.candidates)
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
