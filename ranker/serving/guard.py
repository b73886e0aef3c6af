"""Checks of a request before it reaches a route: its key, its size and its time."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranker.serving import logs
from ranker.serving.limits import Keys
from ranker.serving.metrics import REASONS, TOO_MANY
from ranker.serving.server import Server

RECEIVING: Final = 64
"""Bodies of the longest length that may be received at once; beyond, new ones are refused."""

OPEN: Final = ("/", "/docs", "/redoc", "/openapi.json", "/livez", "/readyz", "/health")
"""Routes without a key: what the server is, and whether it answers."""

ASSETS: Final = "/static-offline-docs/"
"""Path of the files of ``/docs``, which need no key either."""

PAGE: Final = "/ui"
"""Path of the page for people."""

PAGE_CALLS: Final = ("/queue/join", "/reset", "/cancel")
"""Ends of the paths of the page's POST requests; gradio's others take files."""

FILES: Final = re.compile(r"/(file|proxy|stream)(=|/)")
"""Paths of gradio that read files of this machine or of others."""


class Guard:
    """ASGI middleware: refuses requests without a key, bodies that are too long, and work while the queue is full.

    The whole body is read before the application sees it, up to the limit, whatever its Content-Length says. A request
    counts as running once its body is there, so that slow clients take no places. A full queue refuses a request before
    its body is parsed, so that overload costs little.
    """

    def __init__(self, app: ASGIApp, *, server: Server, keys: Keys) -> None:
        self.app = app
        self.keys = keys
        self.limits = server.limits
        self.metrics = server.metrics
        self.batcher = server.batcher
        self.running = 0
        self._received = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it with its route, status and seconds."""
        if scope["type"] == "lifespan":
            await self.app(scope, _until_the_end(receive), send)
            return
        if scope["type"] != "http":  # websockets are not supported
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        status, has_begun = 500, False

        async def send_and_note_status(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self._guarded(scope, receive, send_and_note_status)
        except asyncio.CancelledError:  # the server ends before its requests
            if not has_begun:
                await _refuse(send_and_note_status, 503, "the server ends now; send the request again", RETRY)
        finally:
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
            got = "a key that this server does not know" if authorization else "no key"
            detail = f"expected Authorization: Bearer KEY; got {got}"
            await _refuse(send, 401, detail, [(b"www-authenticate", scheme)])
            return
        if scope["path"].startswith(PAGE) and not _is_of_page(scope["method"], scope["path"]):
            await _refuse(send, 404, "the page takes texts only, no files", CLOSE)
            return
        body = await self._whole_body(scope, receive, send)
        if body is None:
            return
        if scope["method"] == "POST" and not scope["path"].startswith(PAGE):
            refusal = self.batcher.refusal(len(body))  # every character that is scored is one of the body
            if refusal is not None:
                await _refuse(send, refusal.status, str(refusal), _encoded(refusal.headers))
                return
        if self.running >= self.limits.max_concurrent_requests and not is_open:
            scope["refused"] = TOO_MANY
            detail = f"expected at most {self.limits.max_concurrent_requests} requests at once; try again in 1 s"
            await _refuse(send, 429, detail, RETRY)
            return
        self.running += 1
        try:
            await self._answered(scope, body, receive, send)
        finally:
            self.running -= 1

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """The application's answer."""
        body_was_sent = False

        async def receive_read_body() -> Message:
            nonlocal body_was_sent
            if body_was_sent:
                return await receive()
            body_was_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_read_body, send)

    async def _whole_body(self, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The body; None where the request was refused, or its client has gone."""
        limits = self.limits
        body = bytearray()
        try:
            async with asyncio.timeout(limits.request_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        await _refuse(send, 499, "the client has gone")  # nobody reads it; the status is counted
                        return None
                    part = message.get("body", b"")
                    body += part
                    self._received += len(part)
                    more = message.get("more_body", False)
                    if len(body) > limits.payload_limit:
                        await _refuse(send, 413, f"expected a body of at most {limits.payload_limit} bytes", CLOSE)
                        return None
                    if more and self._received > RECEIVING * limits.payload_limit:
                        scope["refused"] = TOO_MANY
                        detail = "too many bodies are being received; try again in 1 s"
                        await _refuse(send, 429, detail, (*RETRY, *CLOSE))
                        return None
        except TimeoutError:
            await _refuse(send, 408, f"expected the whole body within {limits.request_timeout_s:g} s", CLOSE)
            return None
        finally:
            self._received -= len(body)
        return bytes(body)


RETRY: Final = ((b"retry-after", b"1"),)
CLOSE: Final = ((b"connection", b"close"),)
"""Headers of refusals: when to try again, and that the rest of the body is not read."""


def _is_of_page(method: str, path: str) -> bool:
    """Whether the page itself sends such requests."""
    return path.endswith(PAGE_CALLS) if method not in ("GET", "HEAD") else not FILES.search(path)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _until_the_end(receive: Receive) -> Receive:
    """``receive`` of a lifespan that ends in good order when a second signal ends the loop."""

    async def receive_or_end() -> Message:
        try:
            return await receive()
        except asyncio.CancelledError:
            return {"type": "lifespan.shutdown"}

    return receive_or_end


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
