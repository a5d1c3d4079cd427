from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stapo_core.config import FormatGrader
from stapo_core.graders.format import FormatScorer
from stapo_core.graders.score import Pair


def reward(text: str, **settings: Any) -> float:
    config = FormatGrader(type="format", **({"tags": ["think", "answer"]} | settings))
    return FormatScorer(config).score([Pair(text, "")])[0].value


GOOD = "<think>1+1</think>\n<answer>2</answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        (f"  {GOOD}\n", 1.0),
        ("<think>1+1</think><answer> </answer>", 0.0),
        ("<answer>2</answer><think>1+1</think>", 0.0),
        ("<think>1+1<answer>2</answer></think>", 0.0),
        (f"{GOOD}<answer>3</answer>", 0.0),
        ("<think>1+1</think>", 0.0),
        ("<think>1</think>so<answer>2</answer>", 0.0),
        (f"Well. {GOOD}", 0.0),
        (f"{GOOD} Done.", 0.0),
        ("", 0.0),
        ("<THINK>1</THINK><answer>2</answer>", 0.0),
    ],
)
def test_the_tags_stand_once_in_order_and_nothing_beside_them(text: str, expected: float) -> None:
    assert reward(text) == expected


@pytest.mark.parametrize(
    ("where", "rewards"), [("forbidden", (0.0, 0.0, 0.0)), ("before", (1.0, 0.0, 0.0)), ("anywhere", (1.0, 1.0, 1.0))]
)
def test_text_outside_is_allowed_where_the_config_says(where: str, rewards: tuple[float, ...]) -> None:
    texts = (f"Well. {GOOD}", f"{GOOD} Done.", "<think>1</think>so<answer>2</answer>")
    assert tuple(reward(text, text_outside=where) for text in texts) == rewards


def test_empty_tags_may_be_allowed() -> None:
    assert reward("<think></think><answer>2</answer>", allow_empty=True) == 1.0
    assert reward("<think></think><answer>2</answer>") == 0.0


@pytest.mark.parametrize("tags", [[], ["a", "a"], ["<a>"], ["1a"], ["a b"], ["a"] * 17])
def test_tags_that_cannot_work_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValidationError, match="tag"):
        FormatGrader(type="format", tags=tags)


@pytest.mark.parametrize("text", ["<think>" * 200_000, "<" * 1_000_000, "<think></think>" * 100_000])
def test_hostile_text_is_judged_at_once(text: str) -> None:
    start = time.process_time()
    assert reward(text) == 0.0
    assert time.process_time() - start < 1.0


@given(st.text(), st.text())
def test_whatever_stands_inside_counts_as_inside(thought: str, answer: str) -> None:
    has_marks = any(mark in thought + answer for mark in ("<think>", "</think>", "<answer>", "</answer>"))
    expected = float(not has_marks)
    assert reward(f"<think>{thought}</think><answer>{answer}</answer>", allow_empty=True) == expected
