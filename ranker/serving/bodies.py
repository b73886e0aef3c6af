"""Bodies are parsed and checked outside the event loop, so that a large or invalid body delays no other client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope

ERRORS: Final = 10
"""Most problems of a body in a response."""


class CheckedRoute(APIRoute):
    """A route whose body is parsed and checked against its pydantic type in a thread."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, which gets a request with a checked body."""
        handler = super().get_route_handler()
        if self.body_field is None or self.body_field.field_info.annotation is None:
            return handler
        shape = TypeAdapter[Any](self.body_field.field_info.annotation)

        async def check_and_handle(request: Request) -> Response:
            body = await request.body()
            value = await asyncio.to_thread(_check, shape, body) if body else None
            return await handler(CheckedRequest(request.scope, request.receive, body, value))

        return check_and_handle


class CheckedRequest(Request):
    """A request whose JSON is the checked value of its body."""

    def __init__(self, scope: Scope, receive: Receive, body: bytes, value: Any) -> None:
        super().__init__(scope, receive)
        self._raw_body = body
        self._checked_value = value

    async def body(self) -> bytes:
        """The raw bytes."""
        return self._raw_body

    async def json(self) -> Any:
        """The checked value."""
        return self._checked_value


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return json.loads(body)  # accepts lone surrogates, as in texts that were cut within an emoji


def _check(shape: TypeAdapter[Any], body: bytes) -> Any:
    """The body's value of the type ``shape``.

    Raises:
        RequestValidationError: invalid JSON, or a value of another type; at most ``ERRORS`` problems without their
            input.
    """
    try:
        # Parsed before the check, whose errors would otherwise hold copies of the body.
        values = _parse(body)
    except (ValueError, RecursionError) as error:
        problem = {"type": "json_invalid", "loc": ("body",), "msg": f"JSON decode error: {error}"}
        raise RequestValidationError([problem]) from error
    try:
        return shape.validate_python(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS]
        raise RequestValidationError([problem | {"loc": ("body", *problem["loc"])} for problem in problems]) from error
