"""Groups in, rewards out, whatever the grader."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from stapo_core.batch import Group, Prompt, Response
from stapo_core.config import MathGrader, NumericGrader, StringCheckGrader
from stapo_core.graders import build_grader, item_fields
from stapo_core.graders.templates import TemplateError


def group(answer: str, *texts: str) -> Group:
    empty = torch.zeros(0)
    responses = tuple(Response(empty.long(), empty, empty, text, "stop") for text in texts)
    return Group(Prompt(0, "", (1,), {"prompt": "?", "answer": answer}), responses)


def test_each_response_gets_its_own_reward_in_order() -> None:
    pool = build_grader(NumericGrader(type="numeric", reference="{{item.answer}}"))
    graded = pool.grade([group("3", "it is 3", "4"), group("4", "3", "4", "=4")])
    assert [one.rewards for one in graded] == [(1.0, 0.0), (0.0, 1.0, 1.0)]


def test_grading_leaves_prompts_and_responses_as_they_are() -> None:
    asked = group("3", "3")
    pool = build_grader(StringCheckGrader(type="string_check", reference="{{item.answer}}", operation="eq"))
    (graded,) = pool.grade([asked])
    assert graded.prompt is asked.prompt
    assert graded.responses is asked.responses


def test_errors_are_counted_by_kind_until_they_are_taken() -> None:
    pool = build_grader(NumericGrader(type="numeric", reference="{{item.answer}}"))
    pool.grade([group("three", "3", "4")])
    pool.grade([group("four", "4")])
    assert pool.errors == {"reference_not_a_number": 3}
    assert pool.take_errors() == {"reference_not_a_number": 3}
    assert pool.errors == {}


def test_the_math_grader_judges_groups() -> None:
    pool = build_grader(MathGrader(type="math", reference="{{item.answer}}", timeout_s=20.0))
    try:
        (graded,) = pool.grade([group("1/2", r"\boxed{0.5}", r"\boxed{0.25}", r"\boxed{\frac{2}{4}}")])
    finally:
        pool.close()
    assert graded.rewards == (1.0, 0.0, 1.0)


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
