"""``/get_reward`` and ``/v1/score/evaluation``: the remote reward models of OpenRLHF and LLaMA-Factory.

Their texts are rendered prompts with the responses.
Sources: openrlhf/utils/remote_rm_utils.py of OpenRLHF 0.11, llamafactory/api of LLaMA-Factory 0.9.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from ranker.integrations.openrlhf import response
from ranker.metrics import sigmoid
from ranker.serving.bodies import CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import JSONText, Many, Shape, Text, example, scores_of, together, whole_text
from ranker.serving.server import Server


class RewardRequest(Shape):
    """``prompts`` are the beginnings of the texts in ``query``; responses follow them. Empty lists are legal."""

    model_config = example(query=["What is 2 + 2? It is 4.", "What is 2 + 2? It is 5."], prompts=["What is 2 + 2?"] * 2)

    query: Many[Text]
    prompts: Many[Text] | None = None
    labels: Many[Any] | None = None


class EvaluationRequest(Shape):
    """Whole texts."""

    model_config = example(messages=["What is 2 + 2? It is 4."])

    messages: Many[Text] = Field(min_length=1)


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/get_reward", summary="Rewards of whole texts (OpenRLHF)")
    async def get_reward(body: RewardRequest, request: Request) -> JSONText:
        """OpenRLHF's: ``rewards`` are raw logits, ``scores`` their logistic. Equal prompts are read together."""
        prompts = body.prompts or [""] * len(body.query)
        if len(prompts) != len(body.query):
            raise UnprocessableError(["prompts"], f"expected one per query ({len(body.query)}), got {len(prompts)}")
        if server.scorer.info.renders_conversations:
            groups = [whole_text(server, query) for query in body.query]
            rewards = [float(row[0]) for row in scores_of(await server.score(request, groups, alone=True), ["query"])]
        else:
            rewards = await together(server, request, prompts, _answers(body.query, prompts), "query")
        return JSONText({"rewards": rewards, "scores": list(map(sigmoid, rewards)), "extra_logs": {}})

    @routes.post("/v1/score/evaluation", summary="Rewards of texts (LLaMA-Factory)")
    async def evaluation(body: EvaluationRequest, request: Request) -> JSONText:
        """LLaMA-Factory's."""
        groups = [whole_text(server, text) for text in body.messages]
        results = await server.score(request, groups, alone=True)
        scores = [float(row[0]) for row in scores_of(results, ["messages"])]
        name = f"scoreval-{uuid.uuid4().hex}"
        return JSONText({"id": name, "object": "score.evaluation", "model": server.name, "scores": scores})

    return routes


def _answers(queries: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """The responses of queries, for models that read prompt and answer apart.

    Raises:
        UnprocessableError: a query that does not begin with its prompt, which would be read as an answer.
    """
    answers = []
    for number, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
        try:
            answers.append(response(query, prompt))
        except ValueError as error:
            raise UnprocessableError(["query", number], str(error)) from error
    return answers
