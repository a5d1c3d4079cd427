"""The graders that read the response's text alone. What cannot work is refused as the config is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stapo_core.config.strict import Strict

MAX_SCHEMA_BYTES = 64_000


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression in Python's syntax: {error}") from error
    return pattern


def _sound_schema(schema: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]  # slow, seldom needed

    try:
        if len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"the schema is longer than {MAX_SCHEMA_BYTES} bytes")
        Draft202012Validator.check_schema(schema)
        outside = [reference for reference in _references(schema) if not reference.startswith("#")]
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {error.message} (at {error.json_path})") from error
    except RecursionError as error:
        raise ValueError("the schema is nested too deeply") from error
    if outside:
        raise ValueError(
            f"$ref '{outside[0]}' leads outside the schema; only references that begin with # are followed"
        )
    return schema


def _references(schema: Any) -> Iterator[str]:
    """Everything that could be fetched: also `$id` and `$dynamicRef` change where a reference leads."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$id", "$schema") and isinstance(value, str):
                if not (key == "$schema" and value.startswith("https://json-schema.org/draft/2020-12/")):
                    yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


class StringCheckGrader(Strict):
    """1 when the two strings compare as `operation` says, else 0."""

    type: Literal["string_check"]
    name: str = "string_check"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text to check; `{{sample.output_text}}` and `{{item.<field>}}` are filled in."""
    reference: str
    """The text to compare with; the same variables are filled in."""
    operation: Literal["eq", "ne", "like", "ilike"]
    """eq and ne compare whole strings; like and ilike look for the reference inside the input."""


class NumericGrader(Strict):
    """1 when the last number of the response lies within the tolerances of the reference, else 0."""

    type: Literal["numeric"]
    name: str = "numeric"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text whose last number is read."""
    reference: str
    """The right number, usually `{{item.answer}}`."""
    absolute_tolerance: Annotated[float, Field(ge=0.0)] = 0.0
    """The largest difference that still counts as right."""
    relative_tolerance: Annotated[float, Field(ge=0.0)] = 1e-9
    """The largest difference, as a share of the reference, that still counts as right."""


class MathGrader(Strict):
    """1 when the response's boxed answer (or its last expression) is mathematically equal to the reference, else 0."""

    type: Literal["math"]
    name: str = "math"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that holds the answer."""
    reference: str
    """The right answer as LaTeX or a plain number, usually `{{item.answer}}`."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    """Seconds after which one comparison is given up and counted as an error."""


class RegexGrader(Strict):
    """1 when the pattern is found in the response (and, with a reference, its group equals the reference), else 0."""

    type: Literal["regex"]
    name: str = "regex"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that is searched."""
    pattern: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_compiled)]
    """A regular expression in Python's syntax."""
    match: Literal["search", "fullmatch"] = "search"
    """Whether the pattern may be found anywhere or must cover the whole text."""
    ignore_case: bool = False
    """Whether capitals and small letters count as the same."""
    reference: str | None = None
    """What the last match must hold, in its first group or, without groups, as a whole; none: any match counts."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 2.0
    """Seconds after which a search is given up and counted as an error."""


class JsonSchemaGrader(Strict):
    """1 when the response is one JSON value that the schema accepts, else 0."""

    type: Literal["json_schema"]
    name: str = "json_schema"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that is read as JSON; where it holds fenced code blocks, the last of them."""
    json_schema: Annotated[dict[str, Any], AfterValidator(_sound_schema)]
    """A JSON Schema (draft 2020-12); `$ref` may point inside the schema alone."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 2.0
    """Seconds after which a validation is given up and counted as an error."""


class LengthGrader(Strict):
    """1 when the response's length lies between `min_length` and `max_length`, falling to 0 outside."""

    type: Literal["length"]
    name: str = "length"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that is measured."""
    unit: Literal["characters", "words", "lines"] = "words"
    """What is counted; words are what white space parts, and empty lines do not count."""
    min_length: Annotated[int, Field(ge=0)] = 0
    """The shortest length that gets the full reward."""
    max_length: Annotated[int, Field(ge=0)]
    """The longest length that gets the full reward."""
    falloff: Annotated[int, Field(ge=0)] = 0
    """Over how many units outside the two bounds the reward falls to 0, in a straight line; 0: at once."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> LengthGrader:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length {self.min_length} exceeds max_length {self.max_length}; set it to at most that"
            )
        return self


class FormatGrader(Strict):
    """1 when the response consists of the named tags in their order, each opened and closed once, else 0."""

    type: Literal["format"]
    name: str = "format"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text whose form is judged."""
    tags: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,63}$")]], Field(min_length=1, max_length=16)]
    """Names of tags, such as think and answer for <think>...</think><answer>...</answer>."""
    text_outside: Literal["forbidden", "before", "anywhere"] = "forbidden"
    """Where text may stand outside the tags; white space always may."""
    allow_empty: bool = False
    """Whether a tag may hold nothing but white space."""

    @model_validator(mode="after")
    def _tags_differ(self) -> FormatGrader:
        if len(set(self.tags)) < len(self.tags):
            raise ValueError("a tag is named twice; each may occur once")
        return self


class TextSimilarityGrader(Strict):
    """How near the response comes to the reference, from 0 to 1."""

    type: Literal["text_similarity"]
    name: str = "text_similarity"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text to compare; the same variables are filled in as elsewhere."""
    reference: str
    """The text to come near to, usually `{{item.answer}}`."""
    evaluation_metric: Literal[
        "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ]
    """fuzzy_match: share of characters in their order; bleu, gleu: n-grams up to 4; rouge: F1 of n-grams or order."""
