from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapo_core.config import NumericGrader
from stapo_core.graders.numeric import NumericScorer, last_number
from stapo_core.graders.score import Pair


def reward(text: str, reference: str, *, absolute: float = 0.0, relative: float = 1e-9) -> float:
    config = NumericGrader(
        type="numeric", reference="{{item.answer}}", absolute_tolerance=absolute, relative_tolerance=relative
    )
    return NumericScorer(config).score([Pair(text, reference)])[0].value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("the answer is 42.", "42"),
        ("7+6=13, so 933", "933"),
        ("x = -5", "-5"),
        ("\u22123.5 degrees", "-3.5"),
        ("12-5", "5"),
        ("(3)-4", "4"),
        ("1,234,567.5", "1234567.5"),
        ("1,2", "2"),
        ("$1,234", "1234"),
        (".5", "0.5"),
        ("6.02e23", "6.02e23"),
        ("1e-3 m", "0.001"),
        ("+8", "8"),
    ],
)
def test_the_last_number_is_read(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "no number", "-", ".", "٣", "9" * 2000])
def test_a_text_without_a_readable_number_has_none(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [("933", "933", 1.0), ("932", "933", 0.0), ("933.0", "933", 1.0), ("", "933", 0.0), ("0.1", "1/10", 0.0)],
)
def test_without_tolerance_only_the_same_number_counts(text: str, reference: str, expected: float) -> None:
    assert reward(text, reference) == expected


def test_the_absolute_tolerance_is_inclusive() -> None:
    assert reward("10.5", "10", absolute=0.5) == 1.0
    assert reward("10.500001", "10", absolute=0.5) == 0.0


def test_the_relative_tolerance_is_a_share_of_the_reference() -> None:
    assert reward("101", "100", relative=0.01) == 1.0
    assert reward("101.1", "100", relative=0.01) == 0.0


def test_long_integers_are_compared_exactly() -> None:
    assert reward("9" * 60 + "1", "9" * 60 + "2", relative=0.0) == 0.0


def test_a_reference_that_is_no_number_is_counted_as_an_error() -> None:
    config = NumericGrader(type="numeric", reference="{{item.answer}}")
    (score,) = NumericScorer(config).score([Pair("5", "five")])
    assert (score.value, score.error) == (0.0, "reference_not_a_number")


@pytest.mark.parametrize("reference", ["3/4", "x = 3 / 4", "2^10", "10^{3}", r"\frac{3}{4}", "2^n", "1.2.3", "1/x"])
def test_a_reference_whose_number_is_a_part_of_more_is_an_error_and_is_not_read_by_halves(reference: str) -> None:
    config = NumericGrader(type="numeric", reference="{{item.answer}}")
    scores = NumericScorer(config).score([Pair(text, reference) for text in ("4", "10", "3", "2", "0.3", "1")])
    assert {(score.value, score.error) for score in scores} == {(0.0, "reference_not_a_number")}


@pytest.mark.parametrize("reference", ["6/8 = 0.75", "0.75.", "$0.75", "so 3.75-3 -> 0.75 km/h", "#### 0.75"])
def test_a_reference_may_say_more_than_its_number(reference: str) -> None:
    assert reward("0.75", reference) == 1.0


@pytest.mark.parametrize("text", ["1e999999999999", "9" * 500_000, "1," * 200_000, "-" * 500_000, "1e" * 200_000])
def test_hostile_text_is_judged_at_once(text: str) -> None:
    start = time.process_time()
    assert reward(text, "5") in (0.0, 1.0)
    assert time.process_time() - start < 1.0


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert reward(text, "5") in (0.0, 1.0)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_every_decimal_is_read_back(number: Decimal) -> None:
    assert last_number(f"so = {number:f}") == number
