"""``/`` and ``/v1/models``: what is served here."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

import ranker
from ranker.serving.server import Server


class Model(BaseModel):
    """The served model, as OpenAI's API describes one."""

    id: str
    object: str = "model"
    created: int = Field(description="seconds since 1970 at which the server was started")
    owned_by: str = "ranker"
    max_model_len: int = Field(description="tokens at which inputs are cut")


class Models(BaseModel):
    """All models of the server: one."""

    object: str = "list"
    data: list[Model]


def router(server: Server) -> APIRouter:
    """The routes; their requests have no bodies."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        """A page with links, for people who open the address in a browser."""
        return HTMLResponse(PAGE.format(name=escape(server.name), version=escape(ranker.__version__), ui=_ui(server)))

    @routes.get("/v1/models", summary="The served model")
    async def models() -> Models:
        """The model, as OpenAI's API lists models."""
        tokens = server.scorer.info.max_length
        return Models(data=[Model(id=server.name, created=int(server.started), max_model_len=tokens)])

    return routes


def _ui(server: Server) -> str:
    return '<li><a href="ui">Try it</a>: rank answers in the browser' if server.has_page else ""


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ranker: {name}</title><style>:root{{color-scheme:light dark}}body{{font:16px/1.6 system-ui;max-width:40rem;
margin:3rem auto;padding:0 1rem}}code{{overflow-wrap:anywhere}}</style></head><body>
<h1>ranker</h1><p>This server scores answers with <code>{name}</code> (ranker {version}).</p><ul>
{ui}<li><a href="docs">API</a>: all routes, with examples that can be sent
<li><a href="openapi.json">openapi.json</a>: the same for programs
<li><a href="info">info</a>: the model and the limits
<li><a href="metrics">metrics</a>: for Prometheus
<li><a href="readyz">readyz</a>: whether requests are accepted</ul></body></html>
"""
