"""A model behind HTTP until the process is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from ranker.errors import ConfigError, nearest
from ranker.extras import require
from ranker.loading import load
from ranker.scoring.protocol import Scorer
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits, check_host
from ranker.serving.server import Server

logger = logging.getLogger(__name__)

KEYS = "RANKER_API_KEYS"
"""The variable that may hold keys, separated by commas."""


def serve(
    model: str,
    *,
    host: str,
    port: int,
    api_keys: str | None,
    insecure: bool,
    limit: Sequence[str],
    ui: bool,
    name: str | None,
    **options: Any,
) -> None:
    """Serve a model; SIGTERM and SIGINT finish what was taken, within ``drain_seconds``, and end with exit code 0.

    Raises:
        ConfigError: an unknown limit, a port that is taken, or a host beyond this machine without keys.
        ModelFileError, CheckpointError: as in ``ranker.load``.
    """
    keys, limits = Keys.read(api_keys, os.environ.get(KEYS)), limits_of(limit)
    check_host(host, keys, insecure)
    uvicorn = require("uvicorn")
    scorer = load(model, **options).scorer
    server = Server(scorer, name or Path(model).name, limits, facts_of(scorer))
    app = application(server, keys)
    if ui:
        app = require("ranker.serving.page").mount(app, server)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=limits.drain_seconds, server_header=False
    )
    with _listening(host, port) as listener:
        for ended in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ended, lambda number, frame: None)  # uvicorn raises them again when it has drained
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        Console(stderr=True, soft_wrap=True).print(f"ranker: serving {model} on {address}", highlight=False)
        uvicorn.Server(config).run(sockets=[listener])
    if not server.batcher.drain(0):  # Python's shutdown aborts where a thread still computes
        sys.stderr.flush()
        os._exit(0)


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {os.strerror(error.errno or 0)}; choose another port or host"
        ) from error


def limits_of(entries: Sequence[str]) -> Limits:
    """``--limit name=value`` as limits.

    Raises:
        ConfigError: an unknown name, or a value out of its bounds.
    """
    given: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in Limits.model_fields:
            known = list(Limits.model_fields)
            raise ConfigError(f"--limit {entry}: expected a limit's name and value{nearest(name, known)}")
        given[name] = value
    try:
        return Limits.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--limit {problem['loc'][0]}={problem['input']}: {problem['msg']}") from error


def facts_of(scorer: Scorer) -> dict[str, Any]:
    """What ``/info`` says of a model besides its name and the server's limits."""
    return asdict(scorer.info)
