"""Which rows are kept: an expression over a row's numbers, such as ``score > 0.5 and not truncated``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from ranker.errors import ConfigError

NAMES: Final = ("score", "margin", "truncated", "prompt_truncated", "candidates", "characters")
"""Score and margin of the best candidate (null with fewer than two candidates), whether it was truncated, whether the
prompt was, the number of candidates, and the length of the best one."""

COMPARE: Final[dict[type, Callable[[Any, Any], bool]]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

Values = Mapping[str, Any]
Rule = Callable[[Values], bool]


def rule(text: str) -> Rule:
    """The function of an expression: numbers, ``NAMES``, comparisons, ``and``, ``or``, ``not`` and brackets.

    A comparison with a missing number (the margin of a single candidate) is false.

    Raises:
        ConfigError: anything else in the expression.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"--keep '{text:.80}': not an expression; for example \"score > 0.5 and not truncated\""
        ) from error
    return _rule(tree, text)


def normalized(text: str) -> str:
    """The same expression without comments and line breaks, so that it can become a part of another one.

    Raises:
        ConfigError: as in ``rule``.
    """
    rule(text)
    return ast.unparse(ast.parse(text.strip(), mode="eval"))


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
        numbers = [side(values) for side in sides]
        if any(value is None for value in numbers):
            return False
        return all(op(a, b) for op, a, b in zip(compare, numbers, numbers[1:], strict=False))

    return holds


def _value(node: ast.expr, text: str) -> Callable[[Values], Any]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, text)
        return lambda values: None if (number := inner(values)) is None else -number
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return lambda values: node.value
    if isinstance(node, ast.Name) and node.id in NAMES:
        return lambda values: values[node.id]
    raise _refused(text, ast.unparse(node))


def _refused(text: str, what: str) -> ConfigError:
    return ConfigError(f"--keep '{text:.80}': '{what:.40}' is not known; use {', '.join(NAMES)}, numbers, and, or, not")
