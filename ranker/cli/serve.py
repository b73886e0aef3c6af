"""``ranker serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from ranker.cli.options import AverageOrders, Device, Model, Option, Threads, load_options
from ranker.extras import require


def main(
    model: Model,
    host: Annotated[str, typer.Option(help="any host but loopback needs keys, or --insecure")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    api_keys: Annotated[str | None, typer.Option(help="a file with one key a line; or RANKER_API_KEYS")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="listen on another host without keys")] = False,
    limit: Annotated[
        list[str] | None, typer.Option(help="name=value: payload_limit, max_client_batch_size, queue_items, ...")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="a page at /ui (the ui extra)")] = False,
    name: Annotated[str | None, typer.Option(help="of the model in responses; default: the file's name")] = None,
    device: Device = "auto",
    threads: Threads = None,
    option: Option = None,
    average_orders: AverageOrders = True,
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="score a row of every length before /readyz says ready, for GPUs")
    ] = False,
    log_format: Annotated[str, typer.Option(help="text, or json: an object per line")] = "text",
    access_log: Annotated[
        bool | None, typer.Option(help="a line for every request; default with --log-format json")
    ] = None,
) -> None:
    """Serve a model over HTTP: /v1/score, /v1/rank, /v1/compare, and the routes of other reward servers.

    Also /v1/rerank and /v2/rerank (Cohere, Jina, vLLM, TEI), /predict (TEI), /score, /classify and /pooling (vLLM),
    /get_reward (OpenRLHF), /v1/score/evaluation (LLaMA-Factory), /v1/models, /livez, /readyz, /info, /metrics, /docs.

    Example: ranker serve --model model.onnx --port 8000
    """
    require("ranker.serving.serve").serve(
        model,
        host=host,
        port=port,
        api_keys=api_keys,
        insecure=insecure,
        limit=limit or [],
        ui=ui,
        name=name,
        warm_up=warm_up,
        log_format=log_format,
        access_log=access_log,
        device=device,
        threads=threads,
        average_orders=average_orders,
        **load_options(option),
    )
