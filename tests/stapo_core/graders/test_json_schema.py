"""The json_schema grader with its real child processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config import JsonSchemaGrader
from stapo_core.graders.json_schema import JsonSchemaScorer
from stapo_core.graders.score import Pair, Score

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@contextmanager
def scorer(schema: dict[str, Any], *, timeout_s: float = 20.0) -> Iterator[JsonSchemaScorer]:
    made = JsonSchemaScorer(JsonSchemaGrader(type="json_schema", json_schema=schema, timeout_s=timeout_s))
    try:
        yield made
    finally:
        made.close()


def test_json_that_the_schema_accepts_is_rewarded() -> None:
    rewards = {
        '{"name": "Ada", "age": 36}': 1.0,
        ' {"name": "Ada"}\n': 1.0,
        '{"age": 36}': 0.0,
        '{"name": "Ada", "age": -1}': 0.0,
        '{"name": "Ada", "age": 1.5}': 0.0,
        '{"name": "Ada", "x": 1}': 0.0,
        '{"name": "Ada"} and more': 0.0,
        "": 0.0,
        "Ada": 0.0,
    }
    with scorer(PERSON) as made:
        scores = made.score([Pair(text, "") for text in rewards])
    assert dict(zip(rewards, scores, strict=True)) == {text: Score(reward) for text, reward in rewards.items()}


def test_the_last_fenced_block_is_read() -> None:
    with scorer(PERSON) as made:
        good, bad = '```json\n{"name": "Ada"}\n```', '```\n{"name": 1}\n```'
        scores = made.score([Pair(f"Thus:\n{bad}\nno:\n{good}\nDone.", ""), Pair(f"{good}\n{bad}", "")])
    assert scores == [Score(1.0), Score(0.0)]


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", '{"a": 1, "a": 2}', "[" * 100_000, '"' + "a" * 300_000 + '"', "\ud800", "1" * 5000]
)
def test_what_is_no_json_is_worth_nothing(text: str) -> None:
    with scorer({}) as made:
        assert made.score([Pair(text, ""), Pair("1", "")]) == [Score(0.0), Score(1.0)]


def test_a_pattern_without_end_costs_its_deadline_and_nothing_else() -> None:
    with scorer({"type": "string", "pattern": "^(a+)+$"}, timeout_s=1.0) as made:
        start = time.monotonic()
        scores = made.score([Pair('"' + "a" * 60 + 'b"', ""), Pair('"aa"', "")])
        assert time.monotonic() - start < 10.0
    assert scores == [Score(0.0, "timeout"), Score(1.0)]


def test_a_schema_that_refers_to_itself_without_end_is_an_error_of_its_own_kind() -> None:
    with scorer({"$ref": "#"}) as made:
        (score,) = made.score([Pair("1", "")])
    assert score.value == 0.0
    assert score.error is not None
    assert "recursion" in score.error.lower()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"minimum": "1"},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"$id": "https://example.com/", "$ref": "#/x"},
        {"enum": ["a" * 70_000]},
    ],
)
def test_a_schema_that_cannot_work_or_leads_outside_is_refused_before_any_run(schema: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="json_schema"):
        JsonSchemaGrader(type="json_schema", json_schema=schema)
