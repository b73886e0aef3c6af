"""Before a request reaches a route: its key, its size, and its time."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any, Final

from ranker.serving.limits import Keys
from ranker.serving.server import Server

OPEN: Final = ("/livez", "/readyz", "/health")
"""Routes without a key."""

PAGE: Final = "/ui"
"""Path of the page for people."""


class Guard:
    """ASGI middleware: refuses requests without a key, bodies that are too long, and work while the queue is full.

    The whole body is read before the application sees it, up to the limit, whatever its Content-Length says. A full
    queue refuses a request before its body is parsed, so that overload costs little.
    """

    def __init__(self, app: Any, *, server: Server, keys: Keys) -> None:
        self.app = app
        self.keys = keys
        self.limits = server.limits
        self.metrics = server.metrics
        self.batcher = server.batcher
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # websockets are not supported
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.running += 1
        try:
            await self._guarded(scope, receive, noted)
        finally:
            self.running -= 1
            route = getattr(scope.get("route"), "path", "none")  # never a path that a client invents
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _guarded(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        if scope["path"] not in OPEN and not self.keys.allow(authorization):
            scheme = (
                b"Basic" if scope["path"].startswith(PAGE) else b"Bearer"
            )  # browsers only ask for a password on Basic
            await _answer(send, 401, "expected Authorization: Bearer KEY", [(b"www-authenticate", scheme)])
            return
        if self.running > self.limits.max_concurrent_requests and scope["path"] not in OPEN:
            await _answer(send, 503, f"expected at most {self.limits.max_concurrent_requests} requests at once")
            return
        try:
            async with asyncio.timeout(self.limits.request_timeout_s):
                body = await self._body(receive)
        except TimeoutError:
            await _answer(send, 408, f"expected the whole body within {self.limits.request_timeout_s:g} s")
            return
        if body is None:
            return
        if len(body) > self.limits.payload_limit:
            await _answer(send, 413, f"expected a body of at most {self.limits.payload_limit} bytes")
            return
        if self.batcher.full and scope["method"] == "POST" and not scope["path"].startswith(PAGE):
            wait = [(b"retry-after", str(math.ceil(self.batcher.seconds)).encode())]
            await _answer(send, 429, "the queue is full; see Retry-After", wait)
            return
        replayed = False

        async def replay() -> Any:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _body(self, receive: Any) -> bytes | None:
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


async def _answer(send: Any, status: int, detail: str, headers: Any = ()) -> None:
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
