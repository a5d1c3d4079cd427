"""Formulas over named scores: parsed into a tree of arithmetic alone, never evaluated as code. Knows no pydantic.

Numbers, the names of scores, + - * / ^ (or **), brackets, and the functions of FUNCTIONS.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

MAX_LENGTH = 1000
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_SEVERAL = ("min", "max")
_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


class FormulaError(ValueError):
    """The text is no formula over the names it may use; the message says what is wrong."""


class Formula:
    """A formula that has been checked."""

    def __init__(self, text: str) -> None:
        """Raises FormulaError."""
        if len(text) > MAX_LENGTH:
            raise FormulaError(f"the formula has {len(text)} characters; at most {MAX_LENGTH} are read")
        try:
            self._tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
            self.names = frozenset(_check(self._tree))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, FormulaError):
                raise
            raise FormulaError(f"'{text}' is no formula: write something like 0.8 * right + 0.2 * short") from error

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Raises ArithmeticError or ValueError where the result is no finite number."""
        result = float(_evaluate(self._tree, values))
        if not math.isfinite(result):
            raise OverflowError("the result is not finite")
        return result


def _check(node: ast.expr) -> set[str]:
    """The names of scores below a node. Raises FormulaError for anything that is not arithmetic."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float()):
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in _UNARY:
            return _check(inner)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _check(left) | _check(right)
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in FUNCTIONS:
            if len(parts) != 1 and (name not in _SEVERAL or len(parts) < 1):
                raise FormulaError(f"{name} takes one number")
            if len(parts) == 1 and name in _SEVERAL:
                raise FormulaError(f"{name} takes two numbers or more")
            return set().union(*(_check(part) for part in parts))
    raise FormulaError(
        f"'{ast.unparse(node)}' is not allowed in a formula: use numbers, names of graders, + - * / ^, brackets and "
        + ", ".join(FUNCTIONS)
    )


def _evaluate(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=sign, operand=inner):
            return _UNARY[type(sign)](_evaluate(inner, values))
        case ast.BinOp(left=left, op=operation, right=right):
            return _BINARY[type(operation)](_evaluate(left, values), _evaluate(right, values))
        case ast.Call(func=ast.Name(id=name), args=parts):
            return FUNCTIONS[name](*(_evaluate(part, values) for part in parts))
    raise TypeError(type(node))  # _check let it through
