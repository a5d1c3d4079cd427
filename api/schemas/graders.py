"""Graders tried before a job is spent on them, in the dialect's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.wire import Wire
from stapo_core.config import Grader, Strict


class GraderValidate(Strict):
    """A grader to check."""

    grader: Grader
    """The grader, as a job would have it."""


class GraderValidated(Wire):
    """A grader that can be used, with its defaults filled in."""

    grader: Grader
    item_fields: list[str]
    """The fields that each row of the training file must hold."""


class GraderRun(Strict):
    """A grader to try on one response."""

    grader: Grader
    """The grader, as a job would have it."""
    model_sample: Annotated[str, Field(max_length=200_000)]
    """The response, `{{sample.output_text}}`."""
    item: dict[str, Any] = Field(default_factory=dict)
    """The row that it answers, `{{item.*}}`."""


class GraderErrors(Wire):
    """What went wrong, in the dialect's list; here all is false or `other_error`."""

    formula_parse_error: bool = False
    invalid_variable_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    other_error: bool = False
    other_error_kind: str | None = None
    """What kept the grader from judging: timeout, crash, reference_unreadable, ..."""
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False


class GraderRunMetadata(Wire):
    """How the reward came about."""

    errors: GraderErrors
    execution_time: float
    """Seconds."""
    name: str
    sampled_model_name: str | None = None
    scores: dict[str, float]
    token_usage: int | None = None
    type: str


class GraderRunResult(Wire):
    """The reward of one response."""

    metadata: GraderRunMetadata
    model_grader_token_usage_per_model: dict[str, Any] = Field(default_factory=dict)
    reward: float
    sub_rewards: dict[str, float] = Field(default_factory=dict)
