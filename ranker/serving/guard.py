"""Before a request reaches a route: its key, its size, and its time."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from ranker.serving.limits import Keys, Limits
from ranker.serving.metrics import Metrics

OPEN: Final = ("/livez", "/readyz", "/health")
"""Routes that need no key."""


class Guard:
    """ASGI middleware: refuses requests without a key and bodies that are too long, and counts all.

    The body is read whole before the application sees it, up to the limit, whatever its length was said to be.
    """

    def __init__(self, app: Any, *, limits: Limits, keys: Keys, metrics: Metrics) -> None:
        self.app, self.limits, self.keys, self.metrics = app, limits, keys, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # never a path of the client's making
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begun)

    async def _guarded(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"authorization", b"").decode("latin-1")
        if scope["path"] not in OPEN and not self.keys.allow(given):
            scheme = b"Basic" if scope["path"].startswith("/ui") else b"Bearer"  # browsers ask for the one alone
            await _answer(send, 401, "expected Authorization: Bearer KEY", [(b"www-authenticate", scheme)])
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limits.body_bytes:
                await _answer(send, 413, f"expected a body of at most {self.limits.body_bytes} bytes")
                return
        replayed = False

        async def replay() -> Any:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)


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
