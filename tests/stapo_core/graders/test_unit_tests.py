"""A row's tests are taken apart into what the program is asked and what it must give; anything else is refused."""

from __future__ import annotations

import json

import pytest

from stapo_core.graders.unit_tests import Call, Case, UnreadableTests, read_tests


def test_an_assert_becomes_an_expression_and_a_value() -> None:
    tests = read_tests("assert f(2, 3) == 5\nassert g('a')[0] == (1, {'b': [None]})\nassert 7 == f(-1, 8)")
    assert tests.calls == (
        Call("f(2, 3)", 5),
        Call("g('a')[0]", (1, {"b": [None]})),
        Call("f(-1, 8)", 7),
    )
    assert tests.cases == ()


def test_a_call_of_its_own_function_must_be_true_or_not_and_a_value_that_one_and_no_equal() -> None:
    assert read_tests("assert is_even(4)\nassert not is_even(3)\nassert f(0) is None").calls == (
        Call("not not is_even(4)", True),
        Call("not is_even(3)", True),
        Call("f(0)", None, by_identity=True),
    )


def test_a_list_may_hold_asserts_and_whole_runs() -> None:
    tests = read_tests(json.dumps(["assert f(1) == 2", {"input": "1 2\n", "output": "3\n"}]))
    assert (tests.calls, tests.cases) == ((Call("f(1)", 2),), (Case("1 2\n", "3\n"),))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "print(1)", "assert f(1) == g(1)", "assert f(1) != 2", "assert f(1) < 2", "assert abs(f(1))",
        "assert f(1) == 2 == 2", "assert math.isclose(f(1), 2.0)", "assert f(1) == 2 and f(2) == 3", "assert f(",
        "import os\nassert f(1) == 2", "[1]", '[{"input": "1"}]', '[{"input": 1, "output": "2"}]', '["assert"',
        "assert f('\0') == 1", "assert " + "(" * 500, "[" * 100_000, "assert " + "-" * 50_000 + "1 == 1",
        json.dumps(["assert f(1) == 2"] * 1001),
    ],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UnreadableTests):
        read_tests(text)


def test_values_are_compared_as_python_compares_them() -> None:
    assert Call("f()", 1).accepts(1.0)
    assert Call("f()", True).accepts(1)
    assert not Call("f()", [1]).accepts((1,))
    assert not Call("f()", 0.3).accepts(0.1 + 0.2)
    assert not Call("f()", None).accepts(0)
    assert not Call("f()", True, by_identity=True).accepts(1)
    assert Call("f()", True, by_identity=True).accepts(True)


def test_white_space_at_the_ends_of_lines_does_not_count() -> None:
    case = Case("", "a b\nc\n")
    assert case.accepts("a b  \nc\n\n")
    assert case.accepts("a b\r\nc")
    assert not case.accepts("ab\nc")
    assert not case.accepts("a b\n\nc")
