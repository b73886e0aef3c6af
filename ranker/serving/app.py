"""The HTTP application: the guard before the routes, the routes, and the responses to their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from ranker.serving.batcher import RefusedError
from ranker.serving.bodies import ERRORS
from ranker.serving.guard import OPEN, Guard
from ranker.serving.limits import Keys, UnprocessableError
from ranker.serving.routes import health, index, rerank, rewards, v1, vllm
from ranker.serving.server import Server

LAST_BATCH_S: Final = 2.0
"""Seconds for the last batch, after everything else has ended."""

ROUTERS: Final = (
    (index.router, "server"),
    (v1.router, "ranker"),
    (rerank.router, "rerank"),
    (vllm.router, "vLLM"),
    (rewards.router, "reward models"),
    (health.router, "server"),
)
"""The routes, and the heading that ``/docs`` shows them under."""

TAGS: Final = (
    ("ranker", "This package's own routes: any number of answers to a prompt, raw logits."),
    ("rerank", "The routes of Cohere, Jina and text-embeddings-inference."),
    ("vLLM", "vLLM's routes for classifiers and reward models."),
    ("reward models", "The remote reward models of OpenRLHF and LLaMA-Factory."),
    ("server", "The model, health and metrics."),
)

ABOUT: Final = """Scores answers to prompts: higher is better, and a difference of two scores is the log-odds of
preference. Where the server has keys, press *Authorize* and enter one; programs send `Authorization: Bearer KEY`.
"""


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


REFUSALS: Final = {
    400: "the body cannot be read",
    401: "no key",
    408: "the body came too slowly",
    413: "the body is too long",
    429: "too much waits; see Retry-After",
    503: "shutting down, or not computed before its deadline; see Retry-After",
}


def application(server: Server, keys: Keys) -> FastAPI:
    """The ASGI application of a server.

    Example:
        >>> app = application(Server(ranker.load("model.onnx").scorer, "model.onnx", Limits()), Keys([]))
        >>> TestClient(app).post("/v1/rank", json={"prompt": "Say hi", "candidates": ["Hi!", "No."]}).json()
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.batcher.drain, LAST_BATCH_S)  # accepted requests have had their drain_seconds

    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": reason} for status, reason in REFUSALS.items()
    }
    app = FastAPIOffline(
        title="ranker",
        version="1",
        description=ABOUT,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS],
        lifespan=lifespan,
        responses=responses,
        swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": True},
    )
    app.add_middleware(Guard, server=server, keys=keys)
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(UnprocessableError)(_unprocessable)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(404)(_unknown)
    app.exception_handler(405)(_wrong_method)
    for router, tag in ROUTERS:
        app.include_router(router(server), tags=[tag])
    _describe_keys(app, keys)
    return app


def _describe_keys(app: FastAPI, keys: Keys) -> None:
    """Say in the OpenAPI document that requests need a key, where they do."""
    if not keys:
        return
    describe = app.openapi

    def with_keys() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path in OPEN:
            for operation in document["paths"].get(path, {}).values():
                operation["security"] = []
        return document

    app.openapi = with_keys  # type: ignore[method-assign]


async def _refused(request: Request, error: RefusedError) -> JSONResponse:
    request.scope["refused"] = error.cause
    return JSONResponse({"detail": str(error)}, error.status, error.headers)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"no route {request.url.path!r:.200}; /docs and /openapi.json list the routes"}, 404)


async def _wrong_method(request: Request, error: Exception) -> JSONResponse:
    headers = getattr(error, "headers", None) or {}
    allowed = headers.get("allow") or headers.get("Allow") or "another method"
    return JSONResponse({"detail": f"{request.url.path!r:.200} takes {allowed}, not {request.method}"}, 405, headers)


async def _unprocessable(request: Request, error: UnprocessableError) -> JSONResponse:
    detail = [{"type": "value_error", "loc": error.where, "msg": error.reason}]
    return JSONResponse({"detail": detail}, error.status)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI's 422 without the request's content: texts are not echoed, and may hold characters that JSON cannot."""
    detail = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()[:ERRORS]]
    return JSONResponse({"detail": detail}, 422)
