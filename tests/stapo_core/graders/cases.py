"""What every grader must stand, one entry per type: known answers, a text that takes for ever, what cannot be judged.

A grader without an entry fails `test_every_grader.py`. Where a grader cannot take for ever, or can judge whatever it is
given, a sentence stands in the place of the case and says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]
SLOW_S = 1.5
"""The deadline of the cases that run into it."""


@dataclass(frozen=True)
class Case:
    """A response to a row; `changes` are made to the grader's config first."""

    text: str
    item: Item
    kind: str = "timeout"
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cases:
    """One grader: its config, and what is expected of it."""

    config: dict[str, Any]
    known: list[tuple[str, Item, float]]
    """Text, row and reward: at least one right answer, which comes first, and one wrong one."""
    endless: Case | str
    unjudgeable: Case | str


def _problem(task: str, index: int) -> Item:
    asked = {"task": task, "config": {"size": 9, "seed": 0}, "index": index}
    return {"reasoning_gym": asked}


FOUR: Item = {"answer": "4"}
REFERENCE = "{{item.answer}}"
LINEAR = "its time is linear in the text, which the length of a response bounds"
ALWAYS = "it judges any text; a field that the row lacks is refused before a run begins"
NESTED = {"type": "string", "pattern": "^(a+)+$"}
ADD = {"tests": ["assert f(2, 3) == 5"]}
GRADE = """
def grade(sample, item):
    while sample["output_text"] == "hang":
        pass
    return {"4": 1.0, "odd": "no number"}.get(sample["output_text"], 0.0)
"""

CASES: dict[str, Cases] = {
    "string_check": Cases(
        {"reference": REFERENCE, "operation": "eq"},
        [("4", FOUR, 1.0), ("4 ", FOUR, 0.0), ("five", FOUR, 0.0)],
        endless=LINEAR,
        unjudgeable=ALWAYS,
    ),
    "numeric": Cases(
        {"reference": REFERENCE},
        [("2 + 2 = 4.0", FOUR, 1.0), ("4, no, 5", FOUR, 0.0), ("four", FOUR, 0.0)],
        endless=LINEAR,
        unjudgeable=Case("4", {"answer": "four"}, "reference_not_a_number"),
    ),
    "math": Cases(
        {"reference": REFERENCE, "timeout_s": 20.0},
        [(r"\boxed{\frac{8}{2}}", FOUR, 1.0), (r"\boxed{5}", FOUR, 0.0)],
        endless=Case(r"\boxed{9^{9^{9^{9}}}}", FOUR),
        unjudgeable=Case(r"\boxed{4}", {"answer": " "}, "reference_unreadable"),
    ),
    "regex": Cases(
        {"pattern": r"=\s*(\S+)$", "reference": REFERENCE, "timeout_s": 20.0},
        [("2 + 2 = 4", FOUR, 1.0), ("2 + 2 = 5", FOUR, 0.0), ("4", FOUR, 0.0)],
        endless=Case("a" * 40 + "!", FOUR, changes={"pattern": r"^(a+)+$"}),
        unjudgeable="a pattern that is none is refused as the config is read, and every text matches or does not",
    ),
    "json_schema": Cases(
        {"json_schema": {"const": {"n": 4}}, "timeout_s": 20.0},
        [('{"n": 4}', FOUR, 1.0), ('{"n": 5}', FOUR, 0.0), ("4", FOUR, 0.0), ("no JSON", FOUR, 0.0)],
        endless=Case(json.dumps("a" * 40 + "!"), FOUR, changes={"json_schema": NESTED}),
        unjudgeable=Case("1", FOUR, "recursion", {"json_schema": {"$ref": "#"}}),
    ),
    "length": Cases(
        {"max_length": 2},
        [("it is", FOUR, 1.0), ("it is four", FOUR, 0.0)],
        endless=LINEAR,
        unjudgeable=ALWAYS,
    ),
    "format": Cases(
        {"tags": ["answer"]},
        [("<answer>4</answer>", FOUR, 1.0), ("<answer>4", FOUR, 0.0), ("4", FOUR, 0.0)],
        endless=LINEAR,
        unjudgeable=ALWAYS,
    ),
    "text_similarity": Cases(
        {"reference": REFERENCE, "evaluation_metric": "fuzzy_match"},
        [("4", FOUR, 1.0), ("5", FOUR, 0.0)],
        endless="it compares at most a set number of characters",
        unjudgeable=Case("4", {"answer": " "}, "reference_empty"),
    ),
    "score_model": Cases(
        {"model": "judge", "input": [{"role": "user", "content": "{{sample.output_text}}"}], "timeout_s": 20.0},
        [("4", FOUR, 1.0), ("5", FOUR, 0.0)],
        endless=Case("hang", FOUR),
        unjudgeable=Case("prose", FOUR, "score_unreadable"),
    ),
    "reasoning_gym": Cases(
        {"timeout_s": 20.0},
        [("-14282", _problem("chain_sum", 0), 1.0), ("-14283", _problem("chain_sum", 0), 0.0)],
        endless=Case("9**9**9**9", _problem("puzzle24", 0)),
        unjudgeable=Case("4", {"reasoning_gym": "no problem"}, "reference_unreadable"),
    ),
    "code": Cases(
        {"program": "whole_text", "timeout_s": 20.0},
        [("def f(x, y): return x + y", ADD, 1.0), ("def f(x, y): return x - y", ADD, 0.0), ("no Python", ADD, 0.0)],
        endless=Case("while True: pass", ADD),
        unjudgeable=Case("f = max", {"tests": "assert f(2, 3) < 5"}, "tests_unreadable"),
    ),
    "python": Cases(
        {"source": GRADE, "timeout_s": 20.0},
        [("4", FOUR, 1.0), ("5", FOUR, 0.0)],
        endless=Case("hang", FOUR),
        unjudgeable=Case("odd", FOUR, "not_a_number"),
    ),
    "multi": Cases(
        {
            "graders": {
                "right": {"type": "math", "reference": REFERENCE, "timeout_s": SLOW_S},
                "short": {"type": "length", "unit": "characters", "max_length": 20},
            },
            "calculate_output": "right * short",
        },
        [(r"\boxed{4}", FOUR, 1.0), (r"\boxed{5}", FOUR, 0.0), (r"it is quite certain: \boxed{4}", FOUR, 0.0)],
        endless=Case(r"\boxed{9^{9^{9^{9}}}}", FOUR, "right: timeout"),
        unjudgeable=Case(r"\boxed{4}", {"answer": " "}, "right: reference_unreadable"),
    ),
}

HOSTILE = [
    "",
    " \t\r\n\x0b",
    "\x00",
    "\u202e4\u0301\ufeff",
    "{{item.answer}} {{sample.output_text}} {{ }}",
    "(" * 5_000,
    "[" * 20_000,
    '{"a":' * 5_000,
    "9" * 5_000,
    "\\boxed{" * 500,
    "\\frac{1}{0}",
    "<answer>" * 2_000 + "</answer>" * 2_000,
    "```python\n" * 500,
    "a" * 100_000,
    "%s%n%x ${HOME} $(id) `id` ; DROP TABLE jobs; --",
    "\x1b[2J\x1b]0;title\x07",
]
