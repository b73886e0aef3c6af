"""``/livez``, ``/readyz``, ``/health``, ``/info`` and ``/metrics``: for operators of the server."""

from __future__ import annotations

from typing import Any

from ranker.serving.server import Server, fastapi


def add(app: Any, server: Server) -> None:
    """Add the routes."""

    @app.get("/livez")
    async def livez() -> Any:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "draining"}})
    @app.get("/health", responses={503: {"description": "draining"}})
    async def readyz() -> Any:
        """Whether requests are accepted; 503 while draining, or when the engine has died."""
        if not server.batcher.alive:
            raise fastapi.HTTPException(503, "draining")
        return {"status": "ready"}

    @app.get("/info")
    async def info() -> Any:
        """The model, its limits and where it runs."""
        return {"model": server.name, "limits": server.limits.model_dump(), **server.facts}

    @app.get("/metrics", response_class=fastapi.responses.PlainTextResponse)
    async def metrics() -> Any:
        """Prometheus' text format."""
        return fastapi.responses.PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4")
