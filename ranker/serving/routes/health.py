"""``/livez``, ``/readyz``, ``/health``, ``/info`` and ``/metrics``: for operators of the server."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from ranker.scoring.protocol import Calibration
from ranker.serving.limits import Limits
from ranker.serving.server import Server


class ModelInfo(BaseModel):
    """The served model, its limits and where it runs; the fields of ``ScorerInfo`` beside the name and the limits."""

    model: str
    limits: Limits
    layout: str = Field(description="how the model reads candidates")
    precision: str = Field(description="of the backbone's numbers")
    device: str
    max_length: int = Field(description="tokens")
    scores_are_relative: bool = Field(description="scores compare the candidates of one prompt only")
    order_free: bool = Field(description="the order of the candidates cannot change their scores")
    average_orders: bool = Field(description="both orders of a pair are read, where the order matters")
    renders_conversations: bool = Field(description="a chat template renders what is read")
    parallel_passes: int = Field(description="forward passes that run at once")
    engine: str = Field(description="what computes the passes, with its version")
    max_tokens_per_forward: int = Field(description="most padded tokens of a pass now")
    calibration: Calibration
    providers: tuple[str, ...] = Field(description="onnxruntime's names of the devices; empty for a checkpoint")
    graph_sha256: str = Field(description="hash of the graph; empty for a checkpoint")


def router(server: Server) -> APIRouter:
    """The routes; their requests have no bodies."""
    routes = APIRouter()

    @routes.get("/livez", summary="Whether the process answers")
    async def livez() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/readyz", summary="Whether requests are accepted", responses={503: {"description": "draining, or warming up"}}
    )
    @routes.get(
        "/health", summary="Whether requests are accepted", responses={503: {"description": "draining, or warming up"}}
    )
    async def readyz() -> JSONResponse:
        """Whether requests are accepted; 503 while draining or warming up, or when the engine has died."""
        if not server.ready:
            raise HTTPException(503, "warming up" if server.batcher.alive else "draining")
        return JSONResponse({"status": "ready"})

    @routes.get("/info", summary="Model and limits")
    async def info() -> ModelInfo:
        """The model, its limits and where it runs."""
        return ModelInfo(model=server.name, limits=server.limits, **asdict(server.scorer.info))

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Prometheus' text format."""
        return PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes
