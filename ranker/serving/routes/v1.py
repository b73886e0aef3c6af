"""``/v1/score``, ``/v1/rank`` and ``/v1/compare``: this package's own API, version 1.

A prompt may have any number of candidates. Scores are raw logits.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from ranker.batch_scorer import columns_of
from ranker.metrics import sigmoid
from ranker.records import Group
from ranker.serving.bodies import CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import Many, Shape, Text, Turns, prompt_of, scores_of
from ranker.serving.server import Server


class Item(Shape):
    """One prompt and its candidates."""

    prompt: Text | Turns
    candidates: Many[Text]


class ScoreRequest(Shape):
    """One item, or several in ``items``; ``partial`` gives an item that fails its error instead of 422."""

    prompt: Text | Turns | None = None
    candidates: Many[Text] | None = None
    items: Many[Item] | None = None
    partial: bool = False


class Scored(Shape):
    """The result of an item; with an ``error`` the other fields are null."""

    scores: list[float] | None = Field(None, description="raw logits, higher is better")
    ranks: list[int] | None = Field(None, description="1 is best")
    order: list[int] | None = Field(None, description="indices, best first")
    margin: float | None = Field(None, description="logits of the best above the next")
    truncated: list[bool] | None = None
    error: str | None = None


class ScoreResponse(Shape):
    """One result per item, in order."""

    model: str
    results: list[Scored]


class CompareRequest(Shape):
    """Two answers to a prompt."""

    prompt: Text | Turns
    a: Text
    b: Text


class CompareResponse(Shape):
    """``logit`` above 0: a is better; ``probability`` at the model's temperature."""

    model: str
    logit: float
    probability: float


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/v1/score", response_model=ScoreResponse)
    @routes.post("/v1/rank", response_model=ScoreResponse)
    async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
        """Scores, ranks and order of each item's candidates."""
        if body.items is None and (body.prompt is None or body.candidates is None):
            raise UnprocessableError(["items"], "expected prompt and candidates, or items with them")
        items = [Item(prompt=body.prompt or "", candidates=body.candidates or [])] if body.items is None else body.items
        groups = [Group(prompt_of(item.prompt), tuple(item.candidates)) for item in items]
        results = await server.score(request, groups)
        if not body.partial:
            scores_of(results, ["items"])
        return ScoreResponse(model=server.name, results=[Scored(**columns_of(result)) for result in results])

    @routes.post("/v1/compare", response_model=CompareResponse)
    async def compare(body: CompareRequest, request: Request) -> CompareResponse:
        """Log-odds that ``a`` is better than ``b``."""
        results = await server.score(request, [Group(prompt_of(body.prompt), (body.a, body.b))])
        first, second = scores_of(results)[0].tolist()
        probability = sigmoid((first - second) / server.scorer.info.calibration.temperature)
        return CompareResponse(model=server.name, logit=first - second, probability=probability)

    return routes
