"""Bodies are parsed and checked outside the event loop, so that a large or invalid body delays no other client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ranker.serving.server import Request, fastapi

ERRORS: Final = 10
"""Most problems of a body in a response."""


class CheckedRoute(fastapi.routing.APIRoute):  # type: ignore[misc, name-defined]
    """A route whose body is parsed and checked by its shape in a thread."""

    def get_route_handler(self) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        """The route's handler, which gets a request with a checked body."""
        handler: Callable[[Any], Coroutine[Any, Any, Any]] = super().get_route_handler()
        if self.body_field is None:
            return handler
        shape = TypeAdapter(self.body_field.field_info.annotation)

        async def checked(request: Any) -> Any:
            body = await request.body()
            value = await asyncio.to_thread(_checked, shape, body) if body else None
            return await handler(CheckedRequest(request.scope, request.receive, body, value))

        return checked


class CheckedRequest(Request):  # type: ignore[misc, valid-type]
    """A request whose JSON is the checked value of its body."""

    def __init__(self, scope: Any, receive: Any, body: bytes, value: Any) -> None:
        super().__init__(scope, receive)
        self._checked, self._raw = value, body

    async def body(self) -> bytes:
        """The raw bytes."""
        return self._raw

    async def json(self) -> Any:
        """The checked value."""
        return self._checked


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return json.loads(body)  # accepts lone surrogates, as in texts that were cut within an emoji


def _checked(shape: TypeAdapter[Any], body: bytes) -> Any:
    try:
        # Parsed before the check, whose errors would otherwise hold copies of the body.
        values = _parsed(body)
    except (ValueError, RecursionError) as error:
        problem = {"type": "json_invalid", "loc": ("body",), "msg": f"JSON decode error: {error}"}
        raise fastapi.exceptions.RequestValidationError([problem]) from error
    try:
        return shape.validate_python(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS]
        raise fastapi.exceptions.RequestValidationError(
            [problem | {"loc": ("body", *problem["loc"])} for problem in problems]
        ) from error
