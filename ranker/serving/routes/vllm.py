"""``/score``, ``/classify`` and ``/pooling`` as vLLM has them for classifiers and reward models, without ``usage``.

Source: vllm/entrypoints/pooling of vLLM 0.33.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field, model_validator

from ranker.metrics import sigmoid
from ranker.records import Group
from ranker.serving.bodies import CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.rerank import LABEL
from ranker.serving.routes.shapes import (
    Cut,
    JSONText,
    Many,
    Text,
    Turns,
    conversation,
    example,
    scores_of,
    together,
    whole_text,
)
from ranker.serving.server import Server

Texts = Text | Many[Text]

FIRST: Final = ("text_1", "queries", "data_1")
SECOND: Final = ("text_2", "documents", "items", "data_2")
"""Names of the two sides of pairs, in several versions."""


class PairsRequest(Cut):
    """Pairs of texts: one with each of many, or as many as there are of both."""

    model_config = example(text_1="What is 2 + 2?", text_2=["It is 5.", "It is 4."])

    text_1: Texts = Field(validation_alias=AliasChoices(*FIRST))
    text_2: Texts = Field(validation_alias=AliasChoices(*SECOND))
    use_activation: bool = Field(True, description="logistic in [0, 1]; false gives the raw logit")

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, values: Any) -> Any:
        for names in (FIRST, SECOND):
            sent = [name for name in names if isinstance(values, dict) and values.get(name) is not None]
            if len(sent) > 1:
                raise ValueError(f"expected one of {', '.join(names)}; got {' and '.join(sent)}, remove one")
        return values


class PoolingRequest(Cut):
    """Whole texts in ``input``, or one conversation in ``messages`` that ends with the answer."""

    model_config = example(
        messages=[{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}]
    )

    input: Texts | None = None
    messages: Turns | None = None
    use_activation: bool | None = None


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/score", summary="Score pairs of texts (vLLM)")
    async def score(body: PairsRequest, request: Request) -> JSONText:
        """One score per pair."""
        return await scored_pairs(server, body, request)

    @routes.post("/classify", summary="Classify texts (vLLM)")
    async def classify(body: PoolingRequest, request: Request) -> JSONText:
        """The probability of one label, as vLLM gives for models of one output."""
        scores = await scores_of_inputs(body, request, body.use_activation is not False)
        data = [
            {"index": number, "label": LABEL, "probs": [score], "num_classes": 1} for number, score in enumerate(scores)
        ]
        return _response(server, "classify", data)

    @routes.post("/pooling", summary="Raw rewards of texts (vLLM)")
    async def pooling(body: PoolingRequest, request: Request) -> JSONText:
        """The raw logit, as reward models give."""
        scores = await scores_of_inputs(body, request, body.use_activation is True)
        data = [{"index": number, "object": "pooling", "data": [score]} for number, score in enumerate(scores)]
        return _response(server, "pool", data)

    async def scores_of_inputs(body: PoolingRequest, request: Request, activate: bool) -> list[float]:
        value = sigmoid if activate else float
        groups = _inputs(server, body)
        await body.check(server, [text for group in groups for text in group.candidates], "input")
        results = await server.score(request, groups, alone=True)
        body.check_results(server, results, "input")
        return [value(row[0]) for row in scores_of(results, ["input"])]

    return routes


async def scored_pairs(server: Server, body: PairsRequest, request: Request) -> JSONText:
    """VLLM's answer to pairs of texts.

    Raises:
        UnprocessableError: not as many texts of both sides, or a pair that could not be scored.
    """
    first = _texts(body.text_1)
    second = _texts(body.text_2)
    first = first * len(second) if len(first) == 1 else first
    if len(first) != len(second):
        raise UnprocessableError(["text_2"], f"expected one text_1, or as many as text_2 ({len(second)})")
    await body.check(server, second, "text_2")
    value = sigmoid if body.use_activation else float
    scores = [value(score) for score in await together(server, request, first, second, "text_2", body)]
    data = [{"index": number, "object": "score", "score": score} for number, score in enumerate(scores)]
    return _response(server, "score", data)


def _response(server: Server, kind: str, data: list[dict[str, Any]]) -> JSONText:
    name = f"{kind}-{uuid.uuid4().hex}"
    return JSONText({"id": name, "object": "list", "created": int(time.time()), "model": server.name, "data": data})


def _texts(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _inputs(server: Server, body: PoolingRequest) -> list[Group]:
    if body.messages is not None:
        return [conversation(body.messages, ["messages"])]
    if body.input is None:
        raise UnprocessableError(["input"], "expected input, or messages")
    return [whole_text(server, text, add_special_tokens=True) for text in _texts(body.input)]
