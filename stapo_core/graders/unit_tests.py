"""Reads the tests of a row. Pure: nothing is run here, and what a test expects never leaves this side of the wall.

A line `assert f(2, 3) == 5` is taken apart: the program's process evaluates `f(2, 3)` and tells the value, and the 5 is
compared with it here. So a program can neither read what is expected nor claim to have passed.
"""

from __future__ import annotations

import ast
import builtins
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_TESTS = 1000


class UnreadableTests(ValueError):
    """The row's tests are of no form that is known."""


@dataclass(frozen=True, slots=True)
class Call:
    """An expression over the program's names, and the value that it must have."""

    expression: str
    expected: Any
    by_identity: bool = False
    """The type must be the same, too: 1 equals True and is not True."""

    def accepts(self, value: Any) -> bool:
        """Whether a value, of built-in types alone, is the expected one."""
        if self.by_identity and type(value) is not type(self.expected):
            return False
        try:
            return bool(value == self.expected)
        except RecursionError:
            return False


@dataclass(frozen=True, slots=True)
class Case:
    """What a whole run of the program reads, and what it must print; white space at the ends of lines is ignored."""

    stdin: str
    stdout: str

    def accepts(self, printed: str) -> bool:
        """Whether this was printed."""
        return _lines(printed) == _lines(self.stdout)


@dataclass(frozen=True, slots=True)
class Tests:
    """All tests of a row."""

    calls: tuple[Call, ...]
    cases: tuple[Case, ...]


def read_tests(text: str) -> Tests:
    """Lines of asserts, or a JSON list of such texts and of cases. Raises UnreadableTests."""
    calls: list[Call] = []
    cases: list[Case] = []
    for test in _list(text):
        if isinstance(test, str):
            calls += _asserts(test)
        elif isinstance(test, dict) and set(test) == {"input", "output"}:
            cases.append(Case(_text(test["input"]), _text(test["output"])))
        else:
            raise UnreadableTests('a test is a line `assert f(2) == 3` or {"input": ..., "output": ...}')
    if not 1 <= len(calls) + len(cases) <= MAX_TESTS:
        raise UnreadableTests(f"a row has between 1 and {MAX_TESTS} tests, not {len(calls) + len(cases)}")
    return Tests(tuple(calls), tuple(cases))


def _list(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [text]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableTests(f"the tests are no JSON list: {error}") from error
    return list(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnreadableTests("input and output are texts")
    return value


def _asserts(text: str) -> Iterator[Call]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UnreadableTests(f"a test is no Python: {error}") from error
    for statement in module.body:
        if not isinstance(statement, ast.Assert):
            raise UnreadableTests(f"line {statement.lineno} is no assert")
        yield _call(statement.test)


def _call(test: ast.expr) -> Call:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as relation], comparators=[right]):
            for expression, literal in ((left, right), (right, left)):
                try:
                    return Call(ast.unparse(expression), ast.literal_eval(literal), isinstance(relation, ast.Is))
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    continue
        case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
            return Call(f"not not {ast.unparse(test)}", True)  # any true value will do, also one that cannot be told
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Name(id=name))) if not hasattr(builtins, name):
            return Call(ast.unparse(test), True)
    raise UnreadableTests(
        f"`{ast.unparse(test)[:80]}` is neither `expression == literal` nor a call of the program's own function"
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
