"""``/score``, ``/classify`` and ``/pooling`` as vLLM has them for classifiers and reward models, without ``usage``.

Source: vllm/entrypoints/pooling of vLLM 0.33.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from pydantic import AliasChoices, Field

from ranker.metrics import sigmoid
from ranker.records import Group
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.rerank import LABEL
from ranker.serving.routes.shapes import Many, Shape, Text, Turns, conversation, scores_of, together
from ranker.serving.server import Request, Server

Texts = Text | Many[Text]


class ScoreRequest(Shape):
    """Pairs of texts: one with each of many, or as many as there are of both."""

    text_1: Texts = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: Texts = Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))
    use_activation: bool = Field(True, description="logistic in [0, 1]; false gives the raw logit")


class PoolingRequest(Shape):
    """Whole texts in ``input``, or one conversation in ``messages`` that ends with the answer."""

    input: Texts | None = None
    messages: Turns | None = None
    use_activation: bool | None = None


def add(app: Any, server: Server) -> None:
    """Add the routes."""

    @app.post("/score")
    async def score(body: ScoreRequest, request: Request) -> Any:
        """One score per pair."""
        first, second = _list(body.text_1), _list(body.text_2)
        first = first * len(second) if len(first) == 1 else first
        if len(first) != len(second):
            raise UnprocessableError(["text_2"], f"expected one text_1, or as many as text_2 ({len(second)})")
        value = sigmoid if body.use_activation else float
        scores = [value(score) for score in await together(server, request, first, second, "text_2")]
        data = [{"index": number, "object": "score", "score": score} for number, score in enumerate(scores)]
        return _answer("score", data)

    @app.post("/classify")
    async def classify(body: PoolingRequest, request: Request) -> Any:
        """The probability of one label, as vLLM gives for models of one output."""
        scores = await _scores(request, _inputs(body), body.use_activation is not False)
        data = [
            {"index": number, "label": LABEL, "probs": [score], "num_classes": 1} for number, score in enumerate(scores)
        ]
        return _answer("classify", data)

    @app.post("/pooling")
    async def pooling(body: PoolingRequest, request: Request) -> Any:
        """The raw logit, as reward models give."""
        scores = await _scores(request, _inputs(body), body.use_activation is True)
        data = [{"index": number, "object": "pooling", "data": [score]} for number, score in enumerate(scores)]
        return _answer("pool", data)

    async def _scores(request: Any, groups: list[Group], activate: bool) -> list[float]:
        value = sigmoid if activate else float
        results = await server.score(request, groups, alone=True)
        return [value(row[0]) for row in scores_of(results, ["input"])]

    def _answer(kind: str, data: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"{kind}-{uuid.uuid4().hex}"
        return {"id": name, "object": "list", "created": int(time.time()), "model": server.name, "data": data}


def _list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _inputs(body: PoolingRequest) -> list[Group]:
    if body.messages is not None:
        return [conversation(body.messages, ["messages"])]
    if body.input is None:
        raise UnprocessableError(["input"], "expected input, or messages")
    return [Group("", (text,)) for text in _list(body.input)]
