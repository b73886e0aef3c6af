"""Jinja for templates that come with checkpoints: untrusted code, bounded in steps, in characters and in time.

Jinja's sandbox keeps a template from Python's objects. It does not keep it from running for ever or from filling the
memory, so every loop, call, filter, operator and output counts here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

STEPS: Final = 100_000
"""Most steps of a rendering: iterations, calls and filters."""

CHARACTERS: Final = 50_000_000
"""Most characters that a rendering makes, those of all intermediate texts together."""

SECONDS: Final = 1.0
"""Most processor seconds of a rendering; one of a normal template takes less than a millisecond."""

LENGTH: Final = 1_000_000
"""Most characters of a template's source."""

NUMBER: Final = 1_000_000
"""Largest number that an operator may multiply or a call may take: widths and counts beyond it are bombs."""

NODES: Final = 200_000
"""Most items of a list, those of its items included, that is written as text."""

SHALLOW: Final = (
    *("len", "do_batch", "do_default", "do_first", "do_items", "do_last", "do_list", "do_map", "do_reject"),
    *("do_rejectattr", "do_reverse", "do_select", "do_selectattr", "do_slice"),
)
"""Filters, by their functions' names, that write no items of lists as text."""

POWER: Final = 1000
"""Largest number of a power."""

WIDTH: Final = re.compile(r"\d{6}")
"""A width in a format that no text has."""


@dataclass(slots=True)
class _Budget:
    """What a rendering has left."""

    steps: int = STEPS
    characters: int = CHARACTERS
    deadline: float = field(default_factory=lambda: time.thread_time() + SECONDS)

    def step(self) -> None:
        """Count a step.

        Raises:
            SecurityError: it was the last one, or the time is up.
        """
        self.steps -= 1
        if self.steps < 0:
            raise SecurityError("it takes too many steps")
        if self.steps % 16 == 0 and time.thread_time() > self.deadline:
            raise SecurityError("it takes too long")

    def text(self, value: Any) -> Any:
        """Count a value's characters, or its items.

        Raises:
            SecurityError: the rendering has made too many.
        """
        if isinstance(value, str | bytes | list | tuple | dict):
            self.characters -= len(value)
            if self.characters < 0:
                raise SecurityError("it makes too much text")
        return value


_budget: ContextVar[_Budget] = ContextVar("_budget")


def _now() -> _Budget:
    """The rendering's budget; at compile time one for each call."""
    return _budget.get(None) or _Budget()


def render(template: Template, values: Mapping[str, Any]) -> str:
    """The text of a template of ``ENVIRONMENT``.

    Raises:
        SecurityError: it takes too many steps, too long, or makes too much text.
        TemplateError: as Jinja raises it, and whatever the template's code raises.
    """
    budget = _Budget()
    token = _budget.set(budget)
    try:
        pieces: list[str] = []
        for piece in template.generate(values):
            budget.text(piece)
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _budget.reset(token)


def _check_sizes(values: Iterable[Any]) -> None:
    """Refuse arguments that together may make a very large text: large numbers, or texts for each part of others."""
    product = 1
    for value in values:
        if isinstance(value, int) and abs(value) > NUMBER:
            raise SecurityError("it computes with a very large number")
        if isinstance(value, str | list | tuple | dict):
            product *= max(1, len(value))
    if product > 2 * CHARACTERS:
        raise SecurityError("it makes too much text")


def _check_nested(values: Iterable[Any]) -> None:
    """Refuse lists that are written as text and hold each other many times over."""
    left = NODES
    waiting = [value for value in values if isinstance(value, list | tuple | dict)]
    while waiting:
        value = waiting.pop()
        items = [*value, *value.values()] if isinstance(value, dict) else value
        left -= len(items)
        if left < 0:
            raise SecurityError("it writes a very large list")
        waiting += [item for item in items if isinstance(item, list | tuple | dict)]


def _check_format(text: Any) -> None:
    """Refuse a format with a very large width."""
    if isinstance(text, str) and WIDTH.search(text):
        raise SecurityError("it formats a very wide text")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse to repeat a text very often, very large powers, and very wide formats."""
    if operator == "%" and isinstance(left, str):
        _check_format(left)
        _check_nested([right])
    elif operator in ("*", "**"):
        _check_sizes((left, right))
        lengths = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
        counts = [abs(value) for value in (left, right) if isinstance(value, int)]
        if (lengths and counts and lengths[0] * counts[0] > CHARACTERS) or (operator == "**" and max(counts) > POWER):
            raise SecurityError("it makes a very large value")


def _counted(items: Any) -> Iterator[Any]:
    """The items of a loop, each of which is a step."""
    budget = _now()
    for item in items:
        budget.step()
        yield item


def _joined(parts: Iterable[Any]) -> str:
    """What ``~`` joins."""
    parts = list(parts)
    _check_nested(parts)
    return str(_now().text("".join(map(str, parts))))


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test whose call is a step and whose result counts."""

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        budget = _now()
        budget.step()
        if function.__name__ not in SHALLOW:
            _check_nested((*args, *named.values()))
        if function.__name__ == "do_format":
            _check_format(args[0])
        _check_sizes((*args, *named.values()))
        return budget.text(function(*args, **named))

    return call


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote; its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  Jinja's name for it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    """Jinja's namespace without names that reach into Python."""

    def __init__(*args: Any, **values: Any) -> None:
        for name in dict(*args[1:], **values):
            _check_name(name)
        Namespace.__init__(*args, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not set '{name}' on a namespace")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Counting(NodeTransformer):
    """Has loops and ``~`` call what counts them."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  Jinja's name for it
        """A loop over counted items."""
        self.generic_visit(node)
        if not node.recursive:  # its items go through its own calls, which count
            node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """A text whose characters count."""
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_joined", [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """transformers' environment for chat templates, with bounds."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator, which is a step."""
        _now().step()
        _check_operands(operator, left, right)
        return _now().text(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        """A text's ``format`` in the sandbox; wide formats are refused."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(getattr(value, "__self__", None))
        return wrapped

    def call(__self, __context: Any, __obj: Any, *args: Any, **named: Any) -> Any:  # noqa: N805  as in Jinja
        """The result of a call, which is a step."""
        budget = _now()
        budget.step()
        target = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        if name in ("format", "format_map"):
            _check_nested((*args, *named.values()))
        if name == "strftime":
            _check_format(*args[:1])
        _check_sizes((*args, *named.values(), *([target] if isinstance(target, str | list | tuple) else [])))
        return budget.text(super().call(__context, __obj, *args, **named))


@pass_context
def _output(context: Any, value: Any) -> Any:
    """What is written, whose characters count, also within a macro."""
    if isinstance(value, list | tuple | dict):
        _check_nested([value])
    return _now().text(value)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        optimized=False,
        finalize=_output,
    )
    environment.filters["tojson"] = _tojson
    environment.filters = {name: _bounded(function) for name, function in environment.filters.items()}
    environment.filters |= {"_counted": _counted, "_joined": _joined}
    environment.globals |= {"raise_exception": _raise_exception, "namespace": _Namespace}
    del environment.globals["lipsum"]
    return environment


ENVIRONMENT: Final = _environment()
