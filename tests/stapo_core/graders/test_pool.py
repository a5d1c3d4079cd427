"""Groups in, rewards out, whatever the grader."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stapo_core.config import LengthGrader, MathGrader, MultiGrader, NumericGrader, StringCheckGrader
from stapo_core.graders import build_grader, item_fields
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Sample, Score
from stapo_core.graders.templates import TemplateError


def samples(answer: str, *texts: str) -> list[Sample]:
    return [Sample({"prompt": "?", "answer": answer}, text) for text in texts]


def values(scores: list[Score]) -> list[float]:
    return [score.value for score in scores]


def test_each_response_gets_its_own_reward_in_order() -> None:
    pool = build_grader(NumericGrader(type="numeric", reference="{{item.answer}}"))
    judged = pool.judge([*samples("3", "it is 3", "4"), *samples("4", "3", "4", "=4")])
    assert values(judged.total) == [1.0, 0.0, 0.0, 1.0, 1.0]
    pool.close()


def test_what_cannot_be_judged_says_why() -> None:
    pool = build_grader(NumericGrader(type="numeric", reference="{{item.answer}}"))
    judged = pool.judge([*samples("three", "3"), *samples("4", "4")])
    assert judged.total == [Score(0.0, "reference_not_a_number"), Score(1.0)]
    pool.close()


def test_the_math_grader_judges_groups() -> None:
    pool = build_grader(MathGrader(type="math", reference="{{item.answer}}", timeout_s=20.0))
    try:
        judged = pool.judge(samples("1/2", r"\boxed{0.5}", r"\boxed{0.25}", r"\boxed{\frac{2}{4}}"))
    finally:
        pool.close()
    assert values(judged.total) == [1.0, 0.0, 1.0]
    assert all(score.seconds > 0.0 for score in judged.total)


def test_the_parts_of_a_formula_are_told_beside_their_sum() -> None:
    right = NumericGrader(type="numeric", reference="{{item.answer}}")
    short = LengthGrader(type="length", max_length=1)
    formula = "0.75 * right + 0.25 * short"
    pool = build_grader(MultiGrader(type="multi", graders={"right": right, "short": short}, calculate_output=formula))
    judged = pool.judge(samples("3", "3", "it is 3", "4"))
    pool.close()
    assert values(judged.total) == [1.0, 0.75, 0.25]
    assert {name: values(scores) for name, scores in judged.parts.items()} == {
        "right": [1.0, 1.0, 0.0],
        "short": [1.0, 0.0, 1.0],
    }


def test_the_fields_a_grader_reads_come_from_both_templates() -> None:
    grader = StringCheckGrader(
        type="string_check",
        input="{{item.unit}}{{sample.output_text}}",
        reference="{{item.meta.answer}}",
        operation="eq",
    )
    assert item_fields(grader) == {"unit", "meta.answer"}


def test_a_template_with_an_unknown_variable_builds_no_grader() -> None:
    with pytest.raises(TemplateError, match=r"unknown variable '\{\{answer\}\}'"):
        build_grader(NumericGrader(type="numeric", reference="{{answer}}"))


def test_graders_and_data_load_without_torch_or_numpy() -> None:
    program = (
        "import sys, stapo_core.graders, stapo_core.data, stapo_core.presets\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_a_childs_libraries_print_does_not_stand_among_its_answers() -> None:
    pool = ChildPool("tests.stapo_core.graders.talkative", 20.0, num_children=1)
    pairs = [Pair("a", ""), Pair("abc", "")]
    try:
        scores = pool.judge(pairs)
    finally:
        pool.close()
    assert [scores[pair] for pair in pairs] == [Score(1.0), Score(3.0)]
