"""The HTTP application: the guard before the routes, the routes, and the responses to their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from pydantic import BaseModel

from ranker.serving.batcher import RefusedError
from ranker.serving.bodies import ERRORS, CheckedRoute
from ranker.serving.guard import Guard
from ranker.serving.limits import Keys, UnprocessableError
from ranker.serving.routes import health, native, rerank, rewards, vllm
from ranker.serving.server import Server, fastapi

LAST: Final = 2.0
"""Seconds for the last batch, after everything else has ended."""

ROUTES: Final = (native, rerank, vllm, rewards, health)


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


REFUSALS: Final = {
    400: "the body cannot be read",
    401: "no key",
    408: "the body came too slowly",
    413: "the body is too long",
    429: "the queue is full; see Retry-After",
    503: "shutting down, or too many requests at once",
    504: "it waited past its deadline",
}


def application(server: Server, keys: Keys) -> Any:
    """The ASGI application of a server."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.batcher.drain, LAST)  # accepted requests have had their drain_seconds

    known: Any = {status: {"model": Problem, "description": reason} for status, reason in REFUSALS.items()}
    app = fastapi.FastAPI(title="ranker", version="1", lifespan=lifespan, responses=known)
    app.router.route_class = CheckedRoute
    app.add_middleware(Guard, server=server, keys=keys)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(UnprocessableError, _unprocessable)
    app.add_exception_handler(fastapi.exceptions.RequestValidationError, _invalid)
    for routes in ROUTES:
        routes.add(app, server)
    return app


async def _refused(request: Any, error: Any) -> Any:
    return fastapi.responses.JSONResponse({"detail": str(error)}, error.status, error.headers)


async def _unprocessable(request: Any, error: Any) -> Any:
    detail = [{"type": "value_error", "loc": error.where, "msg": error.reason}]
    return fastapi.responses.JSONResponse({"detail": detail}, 422)


async def _invalid(request: Any, error: Any) -> Any:
    """FastAPI's 422 without the request's content: texts are not echoed, and may hold characters that JSON cannot."""
    detail = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()[:ERRORS]]
    return fastapi.responses.JSONResponse({"detail": detail}, 422)
