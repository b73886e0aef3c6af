"""``/get_reward`` and ``/v1/score/evaluation``: the remote reward models of OpenRLHF and LLaMA-Factory.

Their texts are rendered prompts with the responses.
Sources: openrlhf/utils/remote_rm_utils.py of OpenRLHF 0.11, llamafactory/api of LLaMA-Factory 0.9.
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from ranker.integrations.openrlhf import response
from ranker.metrics import sigmoid
from ranker.records import Group
from ranker.serving.bodies import CheckedRoute
from ranker.serving.limits import UnprocessableError
from ranker.serving.routes.shapes import JSONText, Many, Shape, Text, scores_of, together
from ranker.serving.server import Server


class RewardRequest(Shape):
    """``prompts`` are the beginnings of the texts in ``query``; responses follow them. Empty lists are legal."""

    query: Many[Text] = []
    prompts: Many[Text] | None = None
    labels: Many[Any] | None = None


class EvaluationRequest(Shape):
    """Whole texts."""

    messages: Many[Text] = Field(min_length=1)


def router(server: Server) -> APIRouter:
    """The routes, whose bodies are checked outside the event loop."""
    routes = APIRouter(route_class=CheckedRoute)

    @routes.post("/get_reward")
    async def get_reward(body: RewardRequest, request: Request) -> JSONText:
        """OpenRLHF's: ``rewards`` are raw logits, ``scores`` their logistic. Equal prompts are read together."""
        prompts = body.prompts or [""] * len(body.query)
        if len(prompts) != len(body.query):
            raise UnprocessableError(["prompts"], f"expected one per query ({len(body.query)}), got {len(prompts)}")
        answers = [response(query, prompt) for query, prompt in zip(body.query, prompts, strict=True)]
        rewards = await together(server, request, prompts, answers, "query")
        return JSONText({"rewards": rewards, "scores": list(map(sigmoid, rewards)), "extra_logs": {}})

    @routes.post("/v1/score/evaluation")
    async def evaluation(body: EvaluationRequest, request: Request) -> JSONText:
        """LLaMA-Factory's."""
        results = await server.score(request, [Group("", (text,)) for text in body.messages], alone=True)
        scores = [float(row[0]) for row in scores_of(results, ["messages"])]
        name = f"scoreval-{uuid.uuid4().hex}"
        return JSONText({"id": name, "object": "score.evaluation", "model": server.name, "scores": scores})

    return routes
