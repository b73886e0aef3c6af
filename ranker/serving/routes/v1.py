"""``/v1/score``, ``/v1/rank`` and ``/v1/compare``: this package's own API, version 1.

A prompt may have any number of candidates. Scores are raw logits.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import Discriminator, Field, Tag

from ranker.batch_scorer import columns_of
from ranker.metrics import sigmoid
from ranker.records import Group
from ranker.serving.bodies import TAG, CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import (
    JSONText,
    Many,
    Shape,
    Strict,
    Text,
    Turns,
    answer_of,
    example,
    prompt_of,
    scores_of,
)
from ranker.serving.routes.vllm import PairsRequest, scored_pairs
from ranker.serving.server import Server


class Item(Strict):
    """One prompt and its candidates, each a text or the messages of an answer."""

    prompt: Text | Turns
    candidates: Many[Text | Turns]


class ScoreRequest(Strict):
    """One item, or several in ``items``; ``partial`` gives an item that fails its error instead of 422."""

    model_config = example(prompt="What is 2 + 2?", candidates=["It is 5.", "It is 4."])

    prompt: Text | Turns | None = None
    candidates: Many[Text | Turns] | None = None
    items: Many[Item] | None = None
    partial: bool = False
    model: str | None = Field(None, description="not read: there is one model")


def _variant(values: Any) -> str:
    """Whose body it is: vLLM's, or this package's own."""
    if isinstance(values, PairsRequest):  # checked already
        return VLLM
    sent = {name for name, value in values.items() if value is not None} if isinstance(values, dict) else set()
    return VLLM if sent & VLLM_FIELDS and "candidates" not in sent else RANKER


RANKER: Final = f"{TAG}ranker"
VLLM: Final = f"{TAG}vllm"
VLLM_FIELDS: Final = {"text_1", "text_2", "queries", "documents", "data_1", "data_2"}
AnyScoreRequest = Annotated[
    Annotated[ScoreRequest, Tag(RANKER)] | Annotated[PairsRequest, Tag(VLLM)], Discriminator(_variant)
]


class Scored(Shape):
    """The result of an item; with an ``error`` the other fields are null."""

    scores: list[float] | None = Field(None, description="raw logits, higher is better")
    ranks: list[int] | None = Field(None, description="1 is best")
    order: list[int] | None = Field(None, description="indices, best first")
    margin: float | None = Field(None, description="logits of the best above the next")
    truncated: list[bool] | None = Field(None, description="whether an answer was cut")
    prompt_truncated: bool | None = Field(None, description="whether the prompt lost its oldest part")
    special_text: bool | None = Field(None, description="whether a text spells a special token, read as characters")
    error: str | None = None


class ScoreResponse(Shape):
    """One result per item, in order."""

    model: str
    results: list[Scored]


class CompareRequest(Strict):
    """Two answers to a prompt, each a text or messages."""

    model_config = example(prompt="What is 2 + 2?", a="It is 5.", b="It is 4.")

    prompt: Text | Turns
    a: Text | Turns
    b: Text | Turns
    model: str | None = Field(None, description="not read: there is one model")


class CompareResponse(Shape):
    """``logit`` above 0: a is better; ``probability`` at the model's temperature."""

    model: str
    logit: float
    probability: float
    truncated: list[bool]
    prompt_truncated: bool


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/v1/score", summary="Score answers", response_model=ScoreResponse)
    async def score(body: AnyScoreRequest, request: Request) -> ScoreResponse | JSONText:
        """Scores, ranks and order of each item's candidates; of a body in vLLM's shape, vLLM's answer."""
        if isinstance(body, PairsRequest):
            return await scored_pairs(server, body, request)
        return await scored(body, request)

    @routes.post("/v1/rank", summary="Rank the answers to a prompt", response_model=ScoreResponse)
    async def rank(body: ScoreRequest, request: Request) -> ScoreResponse:
        """Scores, ranks and order of each item's candidates."""
        return await scored(body, request)

    async def scored(body: ScoreRequest, request: Request) -> ScoreResponse:
        if body.items is None and (body.prompt is None or body.candidates is None):
            raise UnprocessableError(["items"], "expected prompt and candidates, or items with them")
        if body.items is not None and (body.prompt is not None or body.candidates is not None):
            raise UnprocessableError(["items"], "expected items, or prompt and candidates; got both, remove one")
        items = [Item(prompt=body.prompt or "", candidates=body.candidates or [])] if body.items is None else body.items
        groups = [_group(item, number) for number, item in enumerate(items)]
        results = await server.score(request, groups)
        if not body.partial:
            scores_of(results, ["items"])
        return ScoreResponse(model=server.name, results=[Scored(**columns_of(result)) for result in results])

    @routes.post("/v1/compare", summary="Compare two answers", response_model=CompareResponse)
    async def compare(body: CompareRequest, request: Request) -> CompareResponse:
        """Log-odds that ``a`` is better than ``b``."""
        answers = answer_of(body.a, ["a"]), answer_of(body.b, ["b"])
        results = await server.score(request, [Group(prompt_of(body.prompt), answers)])
        first, second = scores_of(results)[0].tolist()
        probability = sigmoid((first - second) / server.scorer.info.calibration.temperature)
        return CompareResponse(
            model=server.name,
            logit=first - second,
            probability=probability,
            truncated=results[0].truncated.tolist(),
            prompt_truncated=results[0].prompt_truncated,
        )

    return routes


def _group(item: Item, number: int) -> Group:
    answers = [
        answer_of(answer, ["items", number, "candidates", place]) for place, answer in enumerate(item.candidates)
    ]
    return Group(prompt_of(item.prompt), tuple(answers))
