"""Connections with bounds on what a client may send before its request is whole, and how slowly."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ranker.serving.limits import Limits
from ranker.serving.metrics import REASONS, Metrics

logger = logging.getLogger(__name__)

PIECES: Final = 20_000
"""Most pieces that a chunked body may come in; every piece costs the event loop some time."""

FIELDS: Final = 128
"""Most fields of a head."""

MARGIN_S: Final = 5.0
"""Seconds after which a connection is closed whose request the application has refused and whose rest still comes."""


class Connections:
    """The open connections of a server.

    Args:
        limits: their number, and the size and time of a request's head.
        metrics: where requests that never reach the application are counted.

    Example:
        >>> uvicorn.Config(app, http=Connections(Limits(), server.metrics).protocol, ws="none")
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self._count = 0
        self._incomplete: dict[Connection, None] = {}

    def protocol(self, *args: Any, **options: Any) -> Connection:
        """A new connection; uvicorn calls this."""
        return Connection(*args, connections=self, **options)

    def opened(self, connection: Connection) -> None:
        """Count a connection; beyond the limit the oldest one without a whole request is closed."""
        self._count += 1
        self._incomplete[connection] = None
        if self._count > self.limits.max_connections:
            next(iter(self._incomplete)).transport.abort()

    def closed(self, connection: Connection) -> None:
        """Count a connection no longer."""
        self._count -= 1
        self._incomplete.pop(connection, None)

    def waiting(self, connection: Connection) -> None:
        """Its next request is not there yet."""
        self._incomplete[connection] = None

    def complete(self, connection: Connection) -> None:
        """Its request is there as a whole."""
        self._incomplete.pop(connection, None)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits of the head's size and time, of the body's pieces, and of stalled writes."""

    def __init__(self, *args: Any, connections: Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = connections
        self._limits = connections.limits
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_message = False
        self._is_refused = False
        self._since_event = 0
        self._head_bytes = 0
        self._fields = 0
        self._pieces = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the head's time."""
        super().connection_made(transport)
        self._shared.opened(self)
        self._start("head", self._limits.head_timeout_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all times."""
        for name in [*self._timers]:
            self._stop(name)
        self._shared.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the request was refused."""
        if self._is_refused:
            return
        if not self._in_message and "head" not in self._timers:
            self._start("head", self._limits.head_timeout_s, self._head_is_late)
        self._since_event += len(data)
        super().data_received(data)
        if not self._is_refused and self._is_too_long():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_long())

    def on_message_begin(self) -> None:
        """Begin to count the head."""
        super().on_message_begin()
        self._in_message = True
        self._since_event = self._head_bytes = self._fields = self._pieces = 0

    def on_url(self, url: bytes) -> None:
        """Count it; keep no more than the limit."""
        self._count(len(url))
        if not self._is_too_long():
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count it; keep no more than the limit. Fields after the body count too."""
        self._fields += 1
        self._count(len(name) + len(value))
        if not self._is_too_long():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, unless the head is too long."""
        self._stop("head")
        if self._is_refused:
            return
        if self._is_too_long():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_long())
            return
        self._since_event = 0
        self._start("message", self._limits.request_timeout_s + MARGIN_S, self.transport.abort)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass it on."""
        self._since_event = 0
        self._pieces += 1
        if self._is_refused:
            return
        if self._pieces > PIECES:
            self._refuse(HTTPStatus.BAD_REQUEST, f"expected a body of at most {PIECES} chunks; send larger ones")
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_message = False
        self._since_event = 0
        self._stop("message")
        self._shared.complete(self)
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next request may come."""
        self._shared.waiting(self)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client reads slowly: it has the request's time to go on."""
        super().pause_writing()
        self._start("write", self._limits.request_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop("write")
        super().resume_writing()

    def _count(self, size: int) -> None:
        self._since_event = 0
        self._head_bytes += size

    def _is_too_long(self) -> bool:
        most = self._limits.head_limit
        return max(self._head_bytes, self._since_event) > most or self._fields > FIELDS

    def _too_long(self) -> str:
        return f"expected a head of at most {self._limits.head_limit} bytes and {FIELDS} fields"

    def _head_is_late(self) -> None:
        if not self._in_message:  # not one byte of a request
            self.transport.abort()
            return
        seconds = self._limits.head_timeout_s
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"expected the whole head within {seconds:g} s")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer without the application, and close the connection."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:  # its own answer may have begun
            self.transport.abort()
            return
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        metrics = self._shared.metrics
        metrics.requests.labels("none", str(status.value)).inc()
        if status in REASONS:
            metrics.refused.labels(REASONS[status]).inc()
        self.transport.write(head.encode() + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; uvicorn calls this."""
        if not self._is_refused:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _start(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, call)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
