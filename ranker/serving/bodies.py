"""Bodies are parsed and checked outside the event loop, so that a large or invalid body delays no other client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope

from ranker.data.read_row import unread_keys

ERRORS: Final = 10
"""Most problems of a body in a response."""

LONGEST_NAME: Final = 40
"""Most characters of a body's field that a response repeats."""

TAG: Final = "shape:"
"""Beginning of the names of a body's variants, which are no fields."""

IGNORED: Final = "x-ranker-ignored-fields"
CUT: Final = "x-ranker-truncated"
PROMPTS_CUT: Final = "x-ranker-prompts-truncated"
"""Headers of responses: fields of the body that are not read, how many texts were cut, and how many prompts lost their
oldest part."""

EXPECTED: Final = {
    "extra_forbidden": "unknown field; leave it out, or correct its name",
    "model_type": "expected a JSON object",
    "model_attributes_type": "expected a JSON object",
    "dict_type": "expected a JSON object",
    "list_type": "expected a list",
    "string_type": "expected text",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_from_float": "expected an integer",
}
"""Pydantic's kinds of problems in words that do not name its classes."""

HARMLESS: Final = "model"
"""A field that every client sends; there is one model."""

FIELDS: Final = 256
"""Most fields of an object in a body. Each unknown one would be a problem of its own, and all are built."""

SPARSE: Final = 4
"""Least bytes of a body for each value in it, on average, beyond the first thousand. Bodies that can be scored hold
texts; parsing a million empty values would hold the interpreter for 50 ms."""

_CHECKERS: Final = ThreadPoolExecutor(2, thread_name_prefix="ranker-body")
"""Few threads: each holds the interpreter while it parses, and the event loop waits for all of them."""

NAME: Final = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)


class CheckedRoute(APIRoute):
    """A route whose body is parsed and checked against its pydantic type in a thread."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, which gets a request with a checked body."""
        handler = super().get_route_handler()
        if self.body_field is None or self.body_field.field_info.annotation is None:
            return handler
        field = self.body_field.field_info
        annotated: Any = Annotated[field.annotation, field]  # with the field's discriminator
        shape = TypeAdapter[Any](annotated)

        async def check_and_handle(request: Request) -> Response:
            body = await request.body()
            _check_kind(request.headers.get("content-type", "none"))
            running = asyncio.get_running_loop().run_in_executor
            value, ignored = await running(_CHECKERS, _check, shape, body) if body else (None, [])
            checked = CheckedRequest(request.scope, request.receive, body, value)
            response = await handler(checked)
            cut, prompts_cut = getattr(checked.state, "cut", (0, 0))
            facts = {IGNORED: ", ".join(ignored), CUT: cut, PROMPTS_CUT: prompts_cut}
            response.headers.update({name: str(value) for name, value in facts.items() if value})
            return response

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


def _check_kind(kind: str) -> None:
    """Refuse a body that its header does not call JSON: other parts of the server would read it as something else."""
    name = kind.partition(";")[0].strip().lower()
    if name != "application/json" and not (name.startswith("application/") and name.endswith("+json")):
        problem = {
            "type": "value_error",
            "loc": ("header", "content-type"),
            "msg": f"expected application/json, got {kind:.60}",
        }
        raise RequestValidationError([problem])


def _check(shape: TypeAdapter[Any], body: bytes) -> tuple[Any, list[str]]:
    """The body's value of the type ``shape``, and the fields of the body that it does not have.

    Raises:
        RequestValidationError: invalid JSON, or a value of another type; at most ``ERRORS`` problems without their
            input.
    """
    count = body.count(b",") + body.count(b"[") + body.count(b"{")
    if count > 1000 + len(body) // SPARSE:
        reason = f"expected texts, got about {count} values in {len(body)} bytes"
        raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": reason}])
    try:
        # Parsed before the check, whose errors would otherwise hold copies of the body.
        values = _parse(body)
    except (ValueError, RecursionError) as error:
        problem = {"type": "json_invalid", "loc": ("body",), "msg": f"JSON decode error: {error}"}
        raise RequestValidationError([problem]) from error
    _check_fields(values)
    try:
        value = shape.validate_python(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS]
        raise RequestValidationError([_explained(problem, values) for problem in problems]) from error
    return value, _ignored(value, values)


def _check_fields(values: Any) -> None:
    """Refuse objects with very many fields, at the top of a body or in a list of it."""
    lists = [values, *values.values()] if isinstance(values, dict) else [values]
    entries = chain(lists, *(entry for entry in lists if isinstance(entry, list)))
    for entry in entries:
        if isinstance(entry, dict) and len(entry) > FIELDS:
            reason = f"expected objects of at most {FIELDS} fields, got one of {len(entry)}"
            raise RequestValidationError([{"type": "too_long", "loc": ("body",), "msg": reason}])


def _explained(problem: Any, values: Any) -> dict[str, Any]:
    """A problem with its place in the body, and what to do where pydantic's words do not say it."""
    steps = [step for step in problem["loc"] if not (isinstance(step, str) and step.startswith(TAG))]
    where = [step[:LONGEST_NAME] if isinstance(step, str) else step for step in steps]
    if problem["type"] == "missing" and isinstance(values, dict):
        got = ", ".join(name[:LONGEST_NAME] for name in list(values)[:ERRORS]) or "none"
        problem = problem | {"msg": f"expected this field, got the fields {got}"}
    elif problem["type"] in EXPECTED:
        problem = problem | {"msg": EXPECTED[problem["type"]]}
    return {**problem, "loc": ("body", *where)}


def _ignored(value: Any, values: Any) -> list[str]:
    """Fields that are not read, of a body that may have some: names only, as a header can hold them."""
    if not isinstance(values, dict) or not isinstance(value, BaseModel):
        return []
    known = {HARMLESS}
    others: list[str] = []
    for name, field in type(value).model_fields.items():
        alias = field.validation_alias
        choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]
        known |= {*choices}
        others += [choice for choice in choices if values.get(choice) is not None][1:]
    names = [name for name in values if values[name] is not None and (name not in known or name in others)]
    names += [key for name in known & values.keys() for key in unread_keys(name, values[name])]
    return [name for name in dict.fromkeys(names) if NAME.fullmatch(name)][:ERRORS]
