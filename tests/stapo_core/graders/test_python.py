"""The python grader: what the user's function is told, what it may return, and how its troubles are counted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config.graders.programs import PythonGrader
from stapo_core.graders import build_grader
from stapo_core.graders.score import Sample, Score

ITEM = {"answer": "42", "meta": {"weights": [0.25, 0.5]}}


def grade(source: str, *texts: str, item: dict[str, Any] = ITEM, timeout_s: float = 20.0) -> list[Score]:
    config = PythonGrader(type="python", source=source, timeout_s=timeout_s)
    pool = build_grader(config, allows_user_code=True)
    try:
        return pool.judge([Sample(item, text) for text in texts]).total
    finally:
        pool.close()


def test_it_is_told_the_response_and_the_row() -> None:
    source = """
def grade(sample: dict, item: dict) -> float:
    right = sample["output_text"].strip() == item["answer"]
    return item["meta"]["weights"][right] + (sample["choices"][0]["message"]["content"] == "7")
"""
    assert grade(source, "42", " 42 ", "43", "7") == [Score(0.5), Score(0.5), Score(0.25), Score(1.25)]


def test_a_response_that_is_json_is_told_as_such_too() -> None:
    source = "def grade(sample, item): return -1 if sample['output_json'] is None else sample['output_json']['n']"
    assert grade(source, '{"n": 3}', "no JSON") == [Score(3.0), Score(-1.0)]


def test_each_call_begins_afresh() -> None:
    source = "seen = []\ndef grade(sample, item):\n  seen.append(1)\n  return len(seen)"
    assert grade(source, "a", "b", "c") == [Score(1.0)] * 3


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("return None", "not_a_number"),
        ("return 'one'", "not_a_number"),
        ("return float('nan')", "not_a_number"),
        ("return float('inf')", "not_a_number"),
        ("return 10 ** 400", "not_a_number"),
        ("return object()", "not_plain"),
        ("return item['missing']", "KeyError"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("open('/etc/passwd')", "PermissionError"),
        ("import os; os._exit(0)", "no_answer"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("raise MemoryError", "MemoryError"),
        (
            "class Odd(Exception): pass\n  raise type('x y' * 50, (Odd,), {})",
            "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxy",
        ),
    ],
)
def test_what_is_no_reward_is_counted_by_kind(body: str, kind: str) -> None:
    assert grade(f"def grade(sample, item):\n  {body}", "a") == [Score(0.0, kind)]


def test_a_call_that_hangs_costs_its_deadline_and_nothing_else() -> None:
    source = "def grade(sample, item):\n  while sample['output_text'] == 'hang': pass\n  return 1"
    assert grade(source, "a", "hang", "b", timeout_s=1.0) == [Score(1.0), Score(0.0, "timeout"), Score(1.0)]


def test_a_source_that_raises_as_it_loads_is_counted_for_every_response() -> None:
    assert grade("import numpy\ndef grade(sample, item): return 1", "a", "b") == [Score(0.0, "ModuleNotFoundError")] * 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "def score(sample, item): return 1"}, "it defines no function `grade`"),
        ({"source": "x = 1\ndef grade(:"}, "line 2 is no Python"),
        ({"source": "grade = lambda sample, item: 1"}, "it defines no function `grade`"),
        ({"source": "def grade(sample, item): return '\0'"}, "no Python|cannot be read"),
        ({"source": "def grade(sample, item): return 1\n#" + "x" * 256_000}, "at most 256000 are taken"),
        ({"source": "def grade(s, i): return " + "(" * 500}, "no Python|cannot be read"),
        ({"image_tag": "2025-05-08"}, "there is no image '2025-05-08'.*leave image_tag out"),
        ({"timeout_s": 121.0}, "less than or equal to 120"),
    ],
)
def test_a_source_that_cannot_work_is_refused_before_it_is_run(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        PythonGrader.model_validate({"type": "python", "source": "def grade(sample, item): return 1", **changes})
