"""``/rerank`` and ``/predict``: Cohere's, Jina's and vLLM's reranking (``documents``), and TEI's (``texts``).

Sources: vllm/entrypoints/pooling of vLLM 0.33, router/src/http of text-embeddings-inference 1.9.
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from ranker.metrics import sigmoid
from ranker.ranking.ranks import rank_scores
from ranker.records import Group
from ranker.serving.bodies import CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import Cut, JSONText, Many, Shape, Text, example, scores_of, whole_text
from ranker.serving.server import Server

LABEL = "LABEL_0"
"""The label of classifiers with one output."""


class Document(Shape):
    """A document with its text; its other fields come back with it."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    text: Text


class RerankRequest(Cut):
    """``documents`` or ``texts``; the response holds the ``top_n`` best."""

    model_config = example(query="What is 2 + 2?", documents=["It is 5.", "It is 4."])

    query: Text
    documents: Many[Text | Document] | None = None
    texts: Many[Text] | None = None
    top_n: int | None = Field(None, ge=0, description="0 and null: all")
    return_documents: bool = True
    return_text: bool = False
    raw_scores: bool = Field(False, description="logits, instead of their logistic in [0, 1]")
    use_activation: bool = Field(True, description="vLLM's name for it: false gives logits")


class PredictRequest(Cut):
    """A text, a pair of texts, or a list of lists of one or two texts."""

    model_config = example(inputs=[["What is 2 + 2?", "It is 4."], ["What is 2 + 2?", "It is 5."]])

    inputs: Text | Many[Text | Many[Text]]
    raw_scores: bool = False


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/rerank", summary="Rerank documents (TEI, Jina)")
    @routes.post("/v1/rerank", summary="Rerank documents (Jina, vLLM)")
    @routes.post("/v2/rerank", summary="Rerank documents (Cohere)")
    async def rerank(body: RerankRequest, request: Request) -> JSONText:
        """Documents, best first."""
        documents = body.texts if body.texts is not None else body.documents
        if documents is None:
            raise UnprocessableError(["documents"], "expected documents, or texts")
        if body.texts is not None and body.documents is not None:
            raise UnprocessableError(["texts"], "expected documents or texts; got both, remove one")
        texts = [document if isinstance(document, str) else document.text for document in documents]
        await body.check(server, texts, "documents")
        results = await server.score(request, [Group(body.query, tuple(texts))])
        body.check_results(server, results, "query and documents")
        (scores,) = scores_of(results)
        order = rank_scores(scores).order[: body.top_n or None].tolist()
        value = float if body.raw_scores or not body.use_activation else sigmoid
        if body.texts is not None:
            return JSONText(
                [
                    {"index": i, "score": value(scores[i])} | ({"text": texts[i]} if body.return_text else {})
                    for i in order
                ]
            )
        answers = [
            {"index": i, "relevance_score": value(scores[i])}
            | ({"document": _returned(documents[i])} if body.return_documents else {})
            for i in order
        ]
        return JSONText({"id": f"rerank-{uuid.uuid4().hex}", "model": server.name, "results": answers})

    @routes.post("/predict", summary="Score texts or pairs (TEI)")
    async def predict(body: PredictRequest, request: Request) -> JSONText:
        """TEI's classification: one list of one label per input; a lone input gets the inner list."""
        is_lone_input = isinstance(body.inputs, str) or (bool(body.inputs) and isinstance(body.inputs[0], str))
        groups = [_group(server, texts, number) for number, texts in enumerate(_inputs(body.inputs))]
        await body.check(server, [text for group in groups for text in group.candidates], "inputs")
        results = await server.score(request, groups, alone=True)
        body.check_results(server, results, "inputs")
        value = float if body.raw_scores else sigmoid
        classes = [[{"score": value(scores[0]), "label": LABEL}] for scores in scores_of(results, ["inputs"])]
        return JSONText(classes[0] if is_lone_input else classes)

    return routes


def _returned(document: str | Document) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document.model_dump()


def _inputs(inputs: str | list[str | list[str]]) -> list[list[str]]:
    """Each input as a list of its texts. A list that begins with a text is one input; other lists hold one each.

    Raises:
        UnprocessableError: a list that begins with a text and holds lists too.
    """
    if isinstance(inputs, str):
        return [[inputs]]
    if not inputs or not isinstance(inputs[0], str):
        return [[item] if isinstance(item, str) else item for item in inputs]
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise UnprocessableError(["inputs"], "expected texts, or lists of one or two texts, not both")
    return [texts]


def _group(server: Server, texts: list[str], number: int) -> Group:
    """A whole text, or a prompt and its answer.

    Raises:
        UnprocessableError: another number of texts.
    """
    if len(texts) not in (1, 2):
        raise UnprocessableError(["inputs", number], f"expected one text, or a pair, got {len(texts)}")
    return Group(texts[0], (texts[1],)) if len(texts) == 2 else whole_text(server, texts[0], add_special_tokens=True)
