"""``/rerank`` and ``/predict``: Cohere's, Jina's and vLLM's reranking (``documents``), and TEI's (``texts``).

Sources: vllm/entrypoints/pooling of vLLM 0.33, router/src/http of text-embeddings-inference 1.9.
"""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field

from ranker.metrics import sigmoid
from ranker.ranking.ranks import rank_scores
from ranker.records import Group
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import Many, Shape, Text, scores_of
from ranker.serving.server import Request, Server

LABEL = "LABEL_0"
"""The label of classifiers with one output."""


class Document(Shape):
    """A document with its text."""

    text: Text


class RerankRequest(Shape):
    """``documents`` or ``texts``; the response holds the ``top_n`` best."""

    query: Text
    documents: Many[Text | Document] | None = None
    texts: Many[Text] | None = None
    top_n: int | None = Field(None, ge=0, description="0 and null: all")
    return_documents: bool = True
    return_text: bool = False
    raw_scores: bool = Field(False, description="logits, instead of their logistic in [0, 1]")
    use_activation: bool = Field(True, description="vLLM's name for it: false gives logits")


class PredictRequest(Shape):
    """A text, a pair of texts, or a list of lists of one or two texts."""

    inputs: Text | Many[Text | Many[Text]]
    raw_scores: bool = False


def add(app: Any, server: Server) -> None:
    """Add the routes."""

    @app.post("/rerank")
    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def rerank(body: RerankRequest, request: Request) -> Any:
        """Documents, best first."""
        documents = body.texts if body.texts is not None else body.documents
        if documents is None:
            raise UnprocessableError(["documents"], "expected documents, or texts")
        texts = [d if isinstance(d, str) else d.text for d in documents]
        (scores,) = scores_of(await server.score(request, [Group(body.query, tuple(texts))]))
        order = rank_scores(scores).order[: body.top_n or None].tolist()
        value = float if body.raw_scores or not body.use_activation else sigmoid
        if body.texts is not None:
            return [
                {"index": i, "score": value(scores[i])} | ({"text": texts[i]} if body.return_text else {})
                for i in order
            ]
        results = [
            {"index": i, "relevance_score": value(scores[i])}
            | ({"document": {"text": texts[i]}} if body.return_documents else {})
            for i in order
        ]
        return {"id": f"rerank-{uuid.uuid4().hex}", "model": server.name, "results": results}

    @app.post("/predict")
    async def predict(body: PredictRequest, request: Request) -> Any:
        """TEI's classification: one list of one label per input; a lone input gets the inner list."""
        single = isinstance(body.inputs, str) or (bool(body.inputs) and isinstance(body.inputs[0], str))
        if single and not isinstance(body.inputs, str) and not all(isinstance(text, str) for text in body.inputs):
            raise UnprocessableError(["inputs"], "expected texts, or lists of one or two texts, not both")
        inputs = [body.inputs] if single else body.inputs
        groups = [_pair(item, number) for number, item in enumerate(inputs)]
        value = float if body.raw_scores else sigmoid
        classes = [
            [{"score": value(scores[0]), "label": LABEL}]
            for scores in scores_of(await server.score(request, groups, alone=True), ["inputs"])
        ]
        return classes[0] if single else classes


def _pair(item: Any, number: int) -> Group:
    texts = [item] if isinstance(item, str) else item
    if len(texts) not in (1, 2):
        raise UnprocessableError(["inputs", number], f"expected one text, or a pair, got {len(texts)}")
    return Group(texts[0] if len(texts) == 2 else "", (texts[-1],))
