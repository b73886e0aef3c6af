"""Which rows are kept: an expression over a row's numbers, such as ``score > 0.5 and not truncated``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from ranker.errors import ConfigError

NAMES: Final = ("score", "margin", "truncated", "candidates", "characters")
"""The best candidate's score and its lead (null with fewer than two), whether it was cut, how many candidates there
are, and how long the best one is."""

COMPARE: Final[dict[type, Callable[[Any, Any], bool]]] = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip

Values = Mapping[str, Any]
Rule = Callable[[Values], bool]


def rule(text: str) -> Rule:
    """The function of an expression: numbers, ``NAMES``, comparisons, ``and``, ``or``, ``not`` and brackets.

    A comparison with a number that a row has not (the margin of a single candidate) is false.

    Raises:
        ConfigError: anything else in the expression.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"--keep '{text:.80}': no expression; for example \"score > 0.5 and not truncated\""
        ) from error
    return _rule(tree, text)


def _rule(node: ast.expr, text: str) -> Rule:
    if isinstance(node, ast.BoolOp):
        parts = [_rule(part, text) for part in node.values]
        joined = all if isinstance(node.op, ast.And) else any
        return lambda values: joined(part(values) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _rule(node.operand, text)
        return lambda values: not inner(values)
    if isinstance(node, ast.Compare):
        return _comparison(node, text)
    value = _value(node, text)
    return lambda values: bool(value(values))


def _comparison(node: ast.Compare, text: str) -> Rule:
    sides = [_value(side, text) for side in (node.left, *node.comparators)]
    unknown = [op for op in node.ops if type(op) not in COMPARE]
    if unknown:
        raise _refused(text, type(unknown[0]).__name__)
    compare = [COMPARE[type(op)] for op in node.ops]

    def holds(values: Values) -> bool:
        found = [side(values) for side in sides]
        if any(value is None for value in found):
            return False
        return all(op(a, b) for op, a, b in zip(compare, found, found[1:], strict=False))

    return holds


def _value(node: ast.expr, text: str) -> Callable[[Values], Any]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, text)
        return lambda values: None if (found := inner(values)) is None else -found
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return lambda values: node.value
    if isinstance(node, ast.Name) and node.id in NAMES:
        return lambda values: values[node.id]
    raise _refused(text, ast.unparse(node))


def _refused(text: str, what: str) -> ConfigError:
    return ConfigError(f"--keep '{text:.80}': '{what:.40}' is not known; use {', '.join(NAMES)}, numbers, and, or, not")
