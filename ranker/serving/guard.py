"""Checks of a request before it reaches a route: its key, its size and its time."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranker.serving import logs
from ranker.serving.limits import Keys
from ranker.serving.metrics import REASONS, TOO_MANY
from ranker.serving.server import Server

OPEN: Final = ("/", "/docs", "/redoc", "/openapi.json", "/livez", "/readyz", "/health")
"""Routes without a key: what the server is, and whether it answers."""

ASSETS: Final = "/static-offline-docs/"
"""Path of the files of ``/docs``, which need no key either."""

PAGE: Final = "/ui"
"""Path of the page for people."""


class Guard:
    """ASGI middleware: refuses requests without a key, bodies that are too long, and work while the queue is full.

    The whole body is read before the application sees it, up to the limit, whatever its Content-Length says. A full
    queue refuses a request before its body is parsed, so that overload costs little.
    """

    def __init__(self, app: ASGIApp, *, server: Server, keys: Keys) -> None:
        self.app = app
        self.keys = keys
        self.limits = server.limits
        self.metrics = server.metrics
        self.batcher = server.batcher
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it with its route, status and seconds."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # websockets are not supported
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        status = 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.running += 1
        self.metrics.in_flight.inc()
        try:
            await self._guarded(scope, receive, send_and_note_status)
        finally:
            self.running -= 1
            route = getattr(scope.get("route"), "path", "none")  # a route's template: clients cannot add labels
            seconds = time.perf_counter() - started
            self.metrics.in_flight.dec()
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if status in REASONS and scope["path"] not in OPEN:
                self.metrics.refused.labels(scope.get("refused", REASONS[status])).inc()
            client = (scope.get("client") or ("",))[0]
            logs.request(scope["method"], scope["path"], route, status, seconds, client)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        is_open = scope["path"] in OPEN or scope["path"].startswith(ASSETS)
        if not is_open and not self.keys.allow(authorization):
            # A browser asks its user for a password only where the scheme is Basic.
            scheme = b"Basic" if scope["path"].startswith(PAGE) else b"Bearer"
            await _refuse(send, 401, "expected Authorization: Bearer KEY", [(b"www-authenticate", scheme)])
            return
        if self.running > self.limits.max_concurrent_requests and not is_open:
            scope["refused"] = TOO_MANY
            await _refuse(send, 503, f"expected at most {self.limits.max_concurrent_requests} requests at once")
            return
        try:
            async with asyncio.timeout(self.limits.request_timeout_s):
                body = await self._body(receive)
        except TimeoutError:
            await _refuse(send, 408, f"expected the whole body within {self.limits.request_timeout_s:g} s")
            return
        if body is None:
            await _refuse(send, 499, "the client has gone")  # nobody reads it; the status is counted
            return
        if len(body) > self.limits.payload_limit:
            await _refuse(send, 413, f"expected a body of at most {self.limits.payload_limit} bytes")
            return
        if self.batcher.full and scope["method"] == "POST" and not scope["path"].startswith(PAGE):
            wait = [(b"retry-after", str(math.ceil(self.batcher.seconds)).encode())]
            await _refuse(send, 429, "the queue is full; see Retry-After", wait)
            return
        body_was_sent = False

        async def receive_read_body() -> Message:
            nonlocal body_was_sent
            if body_was_sent:
                return await receive()
            body_was_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_read_body, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, at most one message longer than the limit; None when the client has disconnected."""
        body = bytearray()
        more = True
        while more and len(body) <= self.limits.payload_limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)


async def _refuse(send: Send, status: int, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    body = json.dumps({"detail": detail}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
