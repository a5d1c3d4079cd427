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
    note: str | None = None
    """Why a response that could be judged got 0, where that is more than a wrong answer: the limit its program met."""
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


class GraderProbe(Strict):
    """A grader to try on what a model says to a few problems."""

    grader: Grader
    """The grader, as a job would have it."""
    model: str
    """The model whose responses are scored, usually the one to be trained."""
    training_file: str
    """The file whose problems are asked; rows are chosen by the seed."""
    num_prompts: Annotated[int, Field(ge=1, le=32)] = 8
    """Problems that are asked."""
    num_samples: Annotated[int, Field(ge=2, le=16)] = 4
    """Responses to each: the group that a step would compare."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Softmax temperature of the responses."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """A response is cut at this many tokens; when omitted at 256, or at what the model's context leaves."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness of the probe follows from it."""


class ProbeFigures(Wire):
    """What one grader made of the responses; what it could not judge is in no score, but in `errors`."""

    name: str
    type: str
    num_judged: int
    num_distinct: int
    """Different scores."""
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    share_all_zero: float
    """The share of the problems whose responses all got 0."""
    share_all_one: float
    """The share of the problems whose responses all got 1."""
    share_equal: float
    """The share of the problems whose responses all got one score: a step learns nothing from them."""
    errors: dict[str, int]
    """Responses that could not be judged, by kind."""
    error_share: float
    notes: dict[str, int]
    """Responses that got 0 because their program met a limit, by kind."""
    latency_p50_s: float
    latency_p95_s: float


class ProbeExample(Wire):
    """A response and what it got; both texts may be cut."""

    prompt: str
    response: str
    score: float
    error: str | None
    note: str | None
    """The limit that its program met, where that is why it got 0."""
    parts: dict[str, float]
    """The scores of the grader's parts."""


class GraderProbed(Wire):
    """Whether a grader tells a model's responses apart, how fast, and how surely."""

    object: Literal["grader.probe"] = "grader.probe"
    model: str
    num_prompts: int
    num_samples: int
    verdict: Literal["usable", "one_score", "errors"]
    """`one_score` and `errors` are what a run would end or pause for."""
    reason: str
    """The verdict in a sentence."""
    total: ProbeFigures
    parts: list[ProbeFigures]
    """A formula's graders, one by one."""
    examples: list[ProbeExample]
