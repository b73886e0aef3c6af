"""The HTTP application: routes in, groups to the batcher, answers out."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np

from ranker.extras import require
from ranker.ranking.ranks import rank_scores
from ranker.records import Group, Message, Prompt
from ranker.scorer import GroupScores, Scorer
from ranker.serving import shapes
from ranker.serving.batcher import Batcher, DeadlineError, DrainingError, OverloadedError
from ranker.serving.guard import Guard
from ranker.serving.limits import Keys, Limits
from ranker.serving.metrics import Metrics

LOOK: Final = 0.25
"""Seconds between two looks at whether a waiting client is still there."""

fastapi = require("fastapi")
responses = require("fastapi.responses")
Request = fastapi.Request


class Server:
    """A model, its queue and its limits; ``app`` is the ASGI application."""

    def __init__(self, scorer: Scorer, name: str, limits: Limits, keys: Keys, facts: dict[str, Any]) -> None:
        self.scorer, self.name, self.limits, self.facts = scorer, name, limits, facts
        self.metrics = Metrics()
        self.batcher = Batcher(scorer, queue_items=limits.queue_items)
        self.metrics.watch(lambda: self.batcher.waiting)
        self.app = fastapi.FastAPI(title="ranker", version="1", lifespan=self._lifespan)
        self.app.add_middleware(Guard, limits=limits, keys=keys, metrics=self.metrics)
        for kind, status in ((OverloadedError, 429), (DeadlineError, 504), (DrainingError, 503)):
            self.app.add_exception_handler(kind, _handler(status))
        routes(self)

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.batcher.drain, self.limits.drain_seconds)

    async def score(self, request: Any, groups: Sequence[Group]) -> list[GroupScores]:
        """Results of groups, when their turn comes; a client that has gone is not worked for.

        Raises:
            HTTPException: 422 for a request past the limits, 499 for a client that has gone.
            OverloadedError, DeadlineError, DrainingError: as in ``Batcher``.
        """
        self._check(groups)
        self.metrics.items.inc(len(groups))
        waiting = self.batcher.submit(groups, seconds=self.limits.seconds)
        future = asyncio.wrap_future(waiting)
        while not (await asyncio.wait({future}, timeout=LOOK))[0]:
            if await request.is_disconnected() and waiting.cancel():
                raise fastapi.HTTPException(499, "the client has gone")
        results = future.result()
        self.metrics.errors.inc(sum(result.error is not None for result in results))
        return results

    def _check(self, groups: Sequence[Group]) -> None:
        limits = self.limits
        if len(groups) > limits.items:
            raise _unprocessable("items", f"expected at most {limits.items} items, got {len(groups)}")
        for number, group in enumerate(groups):
            if len(group.candidates) > limits.candidates:
                count = len(group.candidates)
                raise _unprocessable(f"items.{number}", f"expected at most {limits.candidates} candidates, got {count}")
            texts = [group.prompt] if isinstance(group.prompt, str) else [m.content for m in group.prompt]
            longest = max(map(len, [*texts, *group.candidates]), default=0)
            if longest > limits.characters:
                raise _unprocessable(
                    f"items.{number}", f"expected texts of at most {limits.characters} characters, got {longest}"
                )


def routes(server: Server) -> None:
    """Our own routes, and those of the servers whose clients may call us."""
    app = server.app

    @app.post("/v1/score", response_model=shapes.ScoreResponse)
    @app.post("/v1/rank", response_model=shapes.ScoreResponse)
    async def score(body: shapes.ScoreRequest, request: Request) -> shapes.ScoreResponse:
        """Scores, ranks (1 = best) and order of each item's candidates; an item that fails has its error."""
        if body.items is None and (body.prompt is None or body.candidates is None):
            raise _unprocessable("items", "expected prompt and candidates, or items with them")
        items = body.items or [shapes.Item(prompt=body.prompt, candidates=body.candidates)]
        results = await server.score(request, [Group(_prompt(i.prompt), tuple(i.candidates)) for i in items])
        return shapes.ScoreResponse(model=server.name, results=[_scored(result) for result in results])

    @app.post("/v1/compare", response_model=shapes.CompareResponse)
    async def compare(body: shapes.CompareRequest, request: Request) -> shapes.CompareResponse:
        """Log-odds that ``a`` is better than ``b``."""
        (result,) = await server.score(request, [Group(_prompt(body.prompt), (body.a, body.b))])
        scores = _whole(result)
        logit = float(scores[0]) - float(scores[1])
        probability = float(np.exp(-np.logaddexp(0, -logit / server.scorer.calibration.temperature)))
        return shapes.CompareResponse(model=server.name, logit=logit, probability=probability)

    @app.post("/rerank")
    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def rerank(body: shapes.RerankRequest, request: Request) -> Any:
        """Cohere's, Jina's, vLLM's (``documents``) and TEI's (``texts``) reranking."""
        documents = body.texts if body.texts is not None else body.documents
        if documents is None:
            raise _unprocessable("documents", "expected documents, or texts")
        texts = [d if isinstance(d, str) else d.text for d in documents]
        (result,) = await server.score(request, [Group(body.query, tuple(texts))])
        scores = _whole(result)
        order = rank_scores(scores).order[: body.top_n].tolist()
        if body.texts is not None:
            values = scores if body.raw_scores else 1 / (1 + np.exp(-scores))
            return [
                {"index": i, "score": float(values[i])} | ({"text": texts[i]} if body.return_text else {})
                for i in order
            ]
        results = [
            {"index": i, "relevance_score": float(scores[i])}
            | ({"document": {"text": texts[i]}} if body.return_documents else {})
            for i in order
        ]
        return {"id": f"rerank-{uuid.uuid4().hex}", "model": server.name, "results": results}

    @app.post("/get_reward")
    async def get_reward(body: shapes.RewardRequest, request: Request) -> Any:
        """OpenRLHF's remote reward model."""
        prompts = body.prompts or [""] * len(body.query)
        if len(prompts) != len(body.query):
            raise _unprocessable("prompts", f"expected one prompt per query ({len(body.query)}), got {len(prompts)}")
        groups = [Group(p, (q[len(p) :] if q.startswith(p) else q,)) for q, p in zip(body.query, prompts, strict=True)]
        results = await server.score(request, groups) if groups else []
        rewards = [float(_whole(result)[0]) for result in results]
        return {"rewards": rewards, "scores": [1 / (1 + math.exp(-r)) for r in rewards], "extra_logs": {}}

    @app.post("/v1/score/evaluation")
    async def evaluation(body: shapes.EvaluationRequest, request: Request) -> Any:
        """LLaMA-Factory's scoring of whole texts."""
        results = await server.score(request, [Group("", (text,)) for text in body.messages])
        scores = [float(_whole(result)[0]) for result in results]
        name = f"scoreval-{uuid.uuid4().hex}"
        return {"id": name, "object": "score.evaluation", "model": server.name, "scores": scores}

    @app.get("/livez")
    async def livez() -> Any:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    @app.get("/health")
    async def readyz() -> Any:
        """Whether requests are taken; 503 while draining."""
        if not server.batcher.alive:
            raise fastapi.HTTPException(503, "draining")
        return {"status": "ready"}

    @app.get("/info")
    async def info() -> Any:
        """The model, its limits and where it runs."""
        return {"model": server.name, "limits": server.limits.model_dump(), **server.facts}

    @app.get("/metrics", response_class=responses.PlainTextResponse)
    async def metrics() -> Any:
        """Prometheus' text format."""
        return responses.PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4")


def _prompt(prompt: str | Sequence[shapes.Turn]) -> Prompt:
    return prompt if isinstance(prompt, str) else tuple(Message(turn.role, turn.content) for turn in prompt)


def _scored(result: GroupScores) -> shapes.Scored:
    if result.error is not None:
        return shapes.Scored(error=result.error)
    ranking = rank_scores(result.scores)
    return shapes.Scored(
        scores=[float(str(score)) for score in result.scores], ranks=ranking.ranks.tolist(),
        order=ranking.order.tolist(), truncated=result.truncated.tolist(),
    )  # fmt: skip


def _whole(result: GroupScores) -> Any:
    if result.error is not None:
        raise _unprocessable("0", result.error)
    return result.scores


def _unprocessable(where: str, reason: str) -> Exception:
    """422 in the shape of FastAPI's own."""
    detail = [{"type": "value_error", "loc": ["body", *where.split(".")], "msg": reason}]
    error: Exception = fastapi.HTTPException(422, detail)
    return error


def _handler(status: int) -> Any:
    async def handle(request: Any, error: Exception) -> Any:
        wait = getattr(error, "retry_after", None)
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
        return responses.JSONResponse({"detail": str(error)}, status, headers)

    return handle
