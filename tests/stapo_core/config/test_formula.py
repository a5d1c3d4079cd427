from __future__ import annotations

import math
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapo_core.config.formula import Formula, FormulaError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("2 * a ^ 2 + b", 2 * 0.25 + 3.0),
        ("2 ** 3", 8.0),
        ("-a + +b", 2.5),
        ("b / 2 - a", 1.0),
        ("min(a, b, 0.25)", 0.25),
        ("max(a, 1 - a)", 0.5),
        ("abs(a - b)", 2.5),
        ("floor(a) + ceil(a)", 1.0),
        ("exp(0) + log(1) + sqrt(4)", 3.0),
        (" a ", 0.5),
        ("1e3", 1000.0),
    ],
)
def test_arithmetic_is_as_written(text: str, value: float) -> None:
    assert Formula(text).evaluate({"a": 0.5, "b": 3.0}) == pytest.approx(value)


def test_the_names_are_those_of_scores_alone() -> None:
    assert Formula("max(right, 0.5 * short) + right").names == {"right", "short"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a; b",
        "a = 1",
        "__import__('os').system('true')",
        "a.b",
        "a[0]",
        "[a]",
        "'a'",
        "True",
        "None",
        "1j",
        "a if b else c",
        "a and b",
        "a < b",
        "not a",
        "~a",
        "a // b",
        "a % b",
        "a << 2",
        "lambda: a",
        "(x := a)",
        "f'{a}'",
        "print(a)",
        "eval(a)",
        "min(*a)",
        "min(a, key=b)",
        "abs(a, b)",
        "min(a)",
        "max()",
        "exp.real",
        "(lambda: 1)()",
        "[a for a in b]",
        "await a",
        "{a: b}",
        "...",
        "a\n+b",
        "(" * 400 + "a" + ")" * 400,
        "a+" * 500 + "a",
    ],
)
def test_all_that_is_not_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        Formula(text)


def test_a_long_row_of_signs_is_still_a_number() -> None:
    assert Formula("-" * 80 + "a").evaluate({"a": 1.0}) == 1.0


@pytest.mark.parametrize(
    "text", ["1 / (a - a)", "sqrt(-1)", "log(0)", "exp(1000)", "10 ^ 400", "(-8) ^ (1/3)", "1e308 * 10"]
)
def test_without_a_finite_value_it_raises(text: str) -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        Formula(text).evaluate({"a": 1.0})


def test_towers_of_powers_cost_nothing() -> None:
    start = time.process_time()
    with pytest.raises(OverflowError):
        Formula("9 ^ 9 ^ 9 ^ 9 ^ 9").evaluate({})
    assert time.process_time() - start < 0.5


@given(st.text(max_size=60))
def test_foreign_text_is_a_formula_or_a_formula_error(text: str) -> None:
    try:
        formula = Formula(text)
    except FormulaError:
        return
    with suppress(ArithmeticError, ValueError):
        assert math.isfinite(formula.evaluate(dict.fromkeys(formula.names, 0.5)))
