"""``ranker serve``: a model behind HTTP until the process is told to stop.

Import this module lazily: it needs the ``serve`` extra, and says so where the extra is missing.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, get_args

from pydantic import ValidationError

from ranker.errors import ConfigError, nearest
from ranker.extras import EXTRA_OF, require
from ranker.loading import load
from ranker.progress import duration
from ranker.serving import logs
from ranker.serving.limits import Keys, Limits, check_host
from ranker.serving.logs import LogFormat

try:
    import uvicorn

    from ranker.serving import page
    from ranker.serving.app import application
    from ranker.serving.connections import Connections
    from ranker.serving.server import Server
except ModuleNotFoundError as error:
    if error.name in EXTRA_OF:
        require(error.name)  # raises the error that names the extra
    raise

logger = logging.getLogger(__name__)

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

OTHER_FILES: Final = 128
"""Open files of the process besides its connections."""

COLLECT: Final = (50_000, 20, 100)
"""Objects between two garbage collections, and how many of those make one of older objects. With Python's 700 a body of
many small lists is collected a thousand times while it is parsed, and the event loop waits for a second."""

KEYS = "RANKER_API_KEYS"
"""The environment variable that may hold keys, separated by commas."""


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
    warm_up: bool = False,
    log_format: LogFormat = "text",
    access_log: bool | None = None,
    **options: Any,
) -> None:
    """Serve a model until SIGTERM or SIGINT.

    After the signal, accepted requests are finished within ``drain_seconds``; the exit code is then 0.

    Args:
        model: what ``ranker.load`` reads.
        host: the address to listen on; another than loopback needs keys, or ``insecure``.
        port: the port; 0 takes a free one.
        api_keys: a file with one key per line; the variable ``RANKER_API_KEYS`` may hold keys too.
        insecure: whether to listen on another host without keys.
        limit: entries ``name=value`` with the fields of ``Limits``.
        ui: whether the page is at ``/ui`` (the ``ui`` extra).
        name: the model's name in responses; default the file's.
        warm_up: whether a row of every length is scored before the server says that it is ready.
        log_format: ``text``, or ``json``: an object per line, with time, level, and the fields of a request.
        access_log: whether every request has a line; default with ``json``.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an unknown limit, a port that is taken, or a host beyond this machine without keys.
        ModelFileError, CheckpointError: as in ``ranker.load``.
        MissingExtraError: ``ui`` without gradio.
    """
    if log_format not in get_args(LogFormat):
        raise ConfigError(f"--log-format: expected text or json, got '{log_format}'")
    logs.configure(log_format, log_format == "json" if access_log is None else access_log)
    keys = Keys.read(api_keys, os.environ.get(KEYS))
    limits = limits_of(limit)
    check_host(host, keys, insecure)
    server = Server(load(model, **options).scorer, name or Path(model).name, limits)
    if warm_up:
        server.warm_up()
    app = application(server, keys)
    if ui:
        app = page.mount(app, server)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=limits.drain_seconds,
        server_header=False,
        ws="none",
        http=Connections(_with_open_files(limits), server.metrics).protocol,  # type: ignore[arg-type]
    )
    gc.freeze()
    gc.set_threshold(*COLLECT)
    with _listening(host, port) as listener:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)  # uvicorn raises them again when it has drained
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        info = server.scorer.info
        facts = {"model": model, "device": info.device, "precision": info.precision, "keys": bool(keys)}
        logs.event(f"serving {model} on {address}", address=address, **facts)
        started = time.monotonic()
        Announced(config, server).run(sockets=[listener])
    whole = server.batcher.drain(0)
    answered = server.metrics.answered()
    text = f"stopped after {duration(time.monotonic() - started)} and {answered:,} requests"
    logs.event(text if whole else f"{text}; a batch was still computed", requests=answered, drained=whole)
    if not whole:  # Python's shutdown aborts where a thread still computes
        sys.stderr.flush()
        os._exit(0)


class Announced(uvicorn.Server):
    """A server that says when it begins to stop, and what it waits for."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; uvicorn then finishes what it has accepted."""
        if not self.should_exit:
            seconds = self._server.limits.drain_seconds
            text = (
                f"stopping: accepted requests are finished within {seconds} s; a further SIGINT (Ctrl-C) ends at once"
            )
            logs.event(text, signal=signal.Signals(sig).name, drain_seconds=seconds)
        super().handle_exit(sig, frame)


def _with_open_files(limits: Limits) -> Limits:
    """The limits, with no more connections than this process may have open files; it may have more from now on."""
    if resource is None:
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return limits.model_copy(update={"max_connections": max(1, soft - OTHER_FILES)})
    return limits


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
    """Entries ``name=value`` of ``--limit`` as limits.

    Example:
        >>> limits_of(["queue_items=40"]).queue_items
        40

    Raises:
        ConfigError: an unknown name, or a value out of its bounds.
    """
    values: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in Limits.model_fields:
            known = list(Limits.model_fields)
            raise ConfigError(f"--limit {entry}: expected a limit's name and value{nearest(name, known)}")
        values[name] = value
    try:
        return Limits.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--limit {problem['loc'][0]}={problem['input']}: {problem['msg']}") from error
