from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config import MultiGrader
from stapo_core.graders import build_grader, item_fields
from stapo_core.graders.score import Sample, Score

RIGHT = {"type": "numeric", "reference": "{{item.answer}}"}
SHORT = {"type": "length", "max_length": 2, "falloff": 2}
FORMED = {"type": "regex", "pattern": "^so"}


def grader(formula: str, **graders: dict[str, Any]) -> MultiGrader:
    return MultiGrader.model_validate({"type": "multi", "graders": graders, "calculate_output": formula})


def judge(config: MultiGrader, answer: str, *texts: str) -> list[Score]:
    pool = build_grader(config)
    try:
        return pool.judge([Sample({"answer": answer}, text) for text in texts]).total
    finally:
        pool.close()


def test_rewards_follow_the_formula() -> None:
    formula = grader("0.8 * right + 0.2 * short", right=RIGHT, short=SHORT)
    scores = judge(formula, "4", "4", "it is 4", "it is about 5", "5")
    # Lengths 1, 3, 4 and 1 are worth 1, 1/2, 0 and 1.
    assert [score.value for score in scores] == pytest.approx([1.0, 0.9, 0.0, 0.2])


def test_graders_in_child_processes_combine_with_the_others() -> None:
    scores = judge(grader("min(right, formed)", right=RIGHT, formed=FORMED), "4", "so 4", "4", "so 5")
    assert scores == [Score(1.0), Score(0.0), Score(0.0)]


def test_what_one_grader_cannot_judge_is_an_error_under_its_name() -> None:
    scores = judge(grader("right + short", right=RIGHT, short=SHORT), "four", "4", "5")
    assert scores == [Score(0.0, "right: reference_not_a_number")] * 2


def test_a_formula_without_a_finite_value_is_an_error() -> None:
    assert judge(grader("1 / right", right=RIGHT), "4", "4", "5") == [Score(1.0), Score(0.0, "formula")]


def test_the_fields_of_all_graders_are_read() -> None:
    other = {"type": "string_check", "reference": "{{item.meta.unit}}", "operation": "like"}
    assert item_fields(grader("right * other", right=RIGHT, other=other)) == {"answer", "meta.unit"}


@pytest.mark.parametrize(
    ("formula", "graders", "message"),
    [
        ("right + other", {"right": RIGHT}, "'other', which is not among the graders"),
        ("right", {"right": RIGHT, "short": SHORT}, "never uses 'short'"),
        ("max(max, 1)", {"max": RIGHT}, "'max' is a function"),
        ("right +", {"right": RIGHT}, "no formula"),
        ("1", {}, "graders"),
        ("a", {"a": {"type": "multi", "graders": {"right": RIGHT}, "calculate_output": "right"}}, "multi"),
        ("a", {"a b": RIGHT}, "graders"),
    ],
)
def test_a_formula_that_cannot_work_is_refused(formula: str, graders: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        grader(formula, **graders)
