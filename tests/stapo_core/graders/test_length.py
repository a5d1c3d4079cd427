from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config import LengthGrader
from stapo_core.graders.length import LengthScorer
from stapo_core.graders.score import Pair


def reward(text: str, **settings: Any) -> float:
    return LengthScorer(LengthGrader(type="length", **settings)).score([Pair(text, "")])[0].value


@pytest.mark.parametrize(("num_words", "expected"), [(1, 0.0), (2, 1.0), (5, 1.0), (6, 0.0)])
def test_both_bounds_are_inside(num_words: int, expected: float) -> None:
    assert reward("word " * num_words, min_length=2, max_length=5) == expected


@pytest.mark.parametrize(
    ("num_words", "expected"), [(10, 1.0), (11, 0.75), (13, 0.25), (14, 0.0), (15, 0.0), (9, 0.75)]
)
def test_the_reward_falls_in_a_straight_line(num_words: int, expected: float) -> None:
    assert reward("word " * num_words, min_length=10, max_length=10, falloff=4) == expected


@pytest.mark.parametrize(
    ("unit", "length"), [("characters", 14), ("words", 3), ("lines", 2)], ids=["characters", "words", "lines"]
)
def test_each_unit_counts_what_it_says(unit: str, length: int) -> None:
    text = "one two\n\nthree"
    assert reward(text, unit=unit, min_length=length, max_length=length) == 1.0
    assert reward(text, unit=unit, min_length=length + 1, max_length=length + 1) == 0.0


def test_no_text_has_length_zero() -> None:
    assert reward("", max_length=0) == 1.0


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_length 5 exceeds max_length 4"):
        LengthGrader(type="length", min_length=5, max_length=4)
