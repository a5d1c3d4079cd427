"""What a response is rewarded for: one class per grader. Knows pydantic alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stapo_core.config.strict import Strict


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
    """Seconds after which one comparison counts as wrong."""


Grader = Annotated[StringCheckGrader | NumericGrader | MathGrader, Field(discriminator="type")]
