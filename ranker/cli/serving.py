"""The verb that serves a model."""

from __future__ import annotations

from typing import Annotated

import typer

from ranker.cli.options import AverageOrders, Device, Model, Threads, command


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="another than loopback needs keys, or --insecure")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    api_keys: Annotated[str | None, typer.Option(help="a file with one key a line; or RANKER_API_KEYS")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="listen on another host without keys")] = False,
    limit: Annotated[
        list[str] | None, typer.Option(help="name=value: payload_limit, max_client_batch_size, queue_items, ...")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="a page at /ui (the ui extra)")] = False,
    name: Annotated[str | None, typer.Option(help="of the model in answers; default the file's")] = None,
    device: Device = "auto",
    threads: Threads = None,
    average_orders: AverageOrders = True,
) -> None:
    """Serve a model over HTTP: /v1/score, /v1/rank, /v1/compare, and the routes of other reward servers.

    Also /v1/rerank and /v2/rerank (Cohere, Jina, vLLM, TEI), /predict (TEI), /score, /classify and /pooling (vLLM),
    /get_reward (OpenRLHF), /v1/score/evaluation (LLaMA-Factory), /livez, /readyz, /info, /metrics, /docs.

    Example: ranker serve --onnx model.onnx --port 8000
    """
    command("serve").run(
        model, host=host, port=port, api_keys=api_keys, insecure=insecure, limit=limit or [], ui=ui, name=name,
        device=device, threads=threads, average_orders=average_orders,
    )  # fmt: skip


def add(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command("serve")(serve)
