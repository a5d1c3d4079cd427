"""The regex grader with its real child processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config import RegexGrader
from stapo_core.graders.regex import RegexScorer
from stapo_core.graders.score import Pair, Score


@contextmanager
def scorer(pattern: str, **settings: Any) -> Iterator[RegexScorer]:
    made = RegexScorer(RegexGrader(type="regex", pattern=pattern, **settings))
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("pattern", "settings", "rewards"),
    [
        (r"\d+", {}, {"it is 42": 1.0, "none": 0.0, "": 0.0}),
        (r"\d+", {"match": "fullmatch"}, {"42": 1.0, "42 ": 0.0}),
        (r"^yes$", {"ignore_case": True}, {"YES": 1.0, "yes.": 0.0}),
        (r"(?m)^a$", {}, {"b\na\nb": 1.0}),
    ],
)
def test_a_match_is_rewarded(pattern: str, settings: dict[str, Any], rewards: dict[str, float]) -> None:
    with scorer(pattern, **settings) as made:
        scores = made.score([Pair(text, "") for text in rewards])
    assert scores == [Score(reward) for reward in rewards.values()]


def test_with_a_reference_the_group_of_the_last_match_is_compared() -> None:
    with scorer(r"answer is (\d+)", reference="{{item.answer}}") as made:
        text = "the answer is 3, no, the answer is 42"
        scores = made.score([Pair(text, "42"), Pair(text, " 42\n"), Pair(text, "3"), Pair("42", "42")])
    assert [score.value for score in scores] == [1.0, 1.0, 0.0, 0.0]


def test_without_groups_the_whole_match_is_compared_and_a_group_left_out_is_no_answer() -> None:
    with scorer(r"[A-D]", reference="x") as made:
        assert made.score([Pair("so A, or B", "B"), Pair("b", "B")]) == [Score(1.0), Score(0.0)]
    with scorer(r"(\d)?x", reference="x") as made:
        assert made.score([Pair("x", "")]) == [Score(0.0)]


def test_case_is_ignored_in_the_comparison_too() -> None:
    with scorer(r"city: (\w+)", reference="x", ignore_case=True) as made:
        assert made.score([Pair("City: PARIS", "paris")]) == [Score(1.0)]


def test_a_search_without_end_costs_its_deadline_and_the_next_is_judged() -> None:
    with scorer(r"(a+)+$", timeout_s=0.5) as made:
        start = time.monotonic()
        scores = made.score([Pair("a" * 60 + "b", ""), Pair("aaa", ""), Pair("b", "")])
        assert time.monotonic() - start < 10.0
        assert scores == [Score(0.0, "timeout"), Score(1.0), Score(0.0)]


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "a" * 1_000_000, "\n" * 100_000, '{"text": 1}\n'])
def test_hostile_text_is_text(text: str) -> None:
    with scorer(r"\Aa+\Z") as made:
        assert made.score([Pair(text, ""), Pair("a", "")]) == [Score(float(text.startswith("aa"))), Score(1.0)]


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{2,1}", "(?P<x>a)(?P<x>b)", "", "(" * 900, "x" * 2001])
def test_a_pattern_that_cannot_work_is_refused_before_any_run(pattern: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        RegexGrader(type="regex", pattern=pattern)
