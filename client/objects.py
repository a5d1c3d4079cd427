"""The service's answers as types, named as in docs/openapi.json. An answer is the plain dict that came.

Written by `python -m client.generate`. Knows the document and nothing behind it.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list; `last_id` is the `after` of the next."""

    data: list[Item]
    first_id: NotRequired[str | None]
    has_more: bool
    last_id: NotRequired[str | None]
    object: Literal["list"]


class ApiKeyCreated(TypedDict):
    """A new key with its text, which is shown this once."""

    created_at: int
    expires_at: int | None
    id: str
    key: str
    last_used_at: int | None
    name: str
    object: Literal["api_key"]
    prefix: str
    revoked_at: int | None
    scopes: list[str]


class ApiKeyObject(TypedDict):
    """A key, without its text."""

    created_at: int
    expires_at: int | None
    id: str
    last_used_at: int | None
    name: str
    object: Literal["api_key"]
    prefix: str
    revoked_at: int | None
    scopes: list[str]


class AssistantMessage(TypedDict):
    """What the model said."""

    content: str
    refusal: NotRequired[None]
    role: Literal["assistant"]


class ChatChoice(TypedDict):
    """One answer."""

    finish_reason: Literal["stop", "length"]
    index: int
    logprobs: NotRequired[ChatLogprobs | None]
    message: AssistantMessage


class ChatCompletionObject(TypedDict):
    """Answers to a conversation."""

    choices: list[ChatChoice]
    created: int
    id: str
    model: str
    object: Literal["chat.completion"]
    usage: TokenUsage


class ChatLogprobs(TypedDict):
    """The tokens of an answer."""

    content: list[ChatToken]
    refusal: NotRequired[None]


class ChatToken(TypedDict):
    """A token of an answer."""

    bytes: list[int] | None
    logprob: float
    token: str
    top_logprobs: list[LikelyToken]


class CheckpointDigest(TypedDict):
    """A checkpoint in one line."""

    bytes: int
    final: bool
    id: str
    sha256: str
    step: int


class CheckpointFileObject(TypedDict):
    """One file of a checkpoint."""

    bytes: int
    path: str
    sha256: str


class CheckpointObject(TypedDict):
    """A whole checkpoint that can be downloaded."""

    bytes: int
    created_at: int
    files: list[CheckpointFileObject]
    final: bool
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    id: str
    metrics: dict[str, float | None]
    object: Literal["fine_tuning.job.checkpoint"]
    step_number: int


class Comparison(TypedDict):
    """The same keys of several jobs, in the order asked for."""

    data: list[JobSeries]
    keys: list[str]
    object: Literal["list"]


class CompletionChoice(TypedDict):
    """One answer."""

    finish_reason: Literal["stop", "length"]
    index: int
    logprobs: NotRequired[CompletionLogprobs | None]
    text: str


class CompletionLogprobs(TypedDict):
    """The tokens of an answer, column by column."""

    text_offset: list[int]
    token_logprobs: list[float]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class CompletionObject(TypedDict):
    """Answers to a prompt."""

    choices: list[CompletionChoice]
    created: int
    id: str
    model: str
    object: Literal["text_completion"]
    usage: TokenUsage


class Duplicate(TypedDict):
    """A row whose prompt stands in the file already."""

    first_line: int
    line: int


class FileDeleted(TypedDict):
    """A file that is gone."""

    deleted: bool
    id: str
    object: Literal["file"]


class FileDigest(TypedDict):
    """A file that a job was made from."""

    bytes: int
    filename: str
    id: str
    sha256: str


class FileObject(TypedDict):
    """An uploaded file."""

    bytes: int
    created_at: int
    filename: str
    id: str
    object: Literal["file"]
    purpose: str
    sha256: str
    status: Literal["processed"]


class FileValidation(TypedDict):
    """What is wrong with a file and what it is like."""

    duplicates: list[Duplicate]
    fields: dict[str, int]
    file_id: str
    missing: dict[str, int]
    num_duplicates: int
    num_kept: int
    num_refused: int
    num_rows: int
    object: Literal["file.validation"]
    overlap: Overlap | None
    prompt_characters: Lengths | None
    prompt_tokens: Lengths | None
    refused: list[Refusal]


class Funnel(TypedDict):
    """How many tokens meet each further condition."""

    low_p: int
    low_p_low_h: int
    positive_advantage: int
    tokens: int


class GraderErrors(TypedDict):
    """What went wrong, in the dialect's list; here all is false or `other_error`."""

    formula_parse_error: bool
    invalid_variable_error: bool
    model_grader_parse_error: bool
    model_grader_refusal_error: bool
    model_grader_server_error: bool
    model_grader_server_error_details: NotRequired[str | None]
    other_error: bool
    other_error_kind: NotRequired[str | None]
    python_grader_runtime_error: bool
    python_grader_runtime_error_details: NotRequired[str | None]
    python_grader_server_error: bool
    python_grader_server_error_type: NotRequired[str | None]
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool


class GraderProbed(TypedDict):
    """Whether a grader tells a model's responses apart, how fast, and how surely."""

    examples: list[ProbeExample]
    model: str
    num_prompts: int
    num_samples: int
    object: Literal["grader.probe"]
    parts: list[ProbeFigures]
    reason: str
    total: ProbeFigures
    verdict: Literal["usable", "one_score", "errors"]


class GraderRunMetadata(TypedDict):
    """How the reward came about."""

    errors: GraderErrors
    execution_time: float
    name: str
    note: NotRequired[str | None]
    sampled_model_name: NotRequired[str | None]
    scores: dict[str, float]
    token_usage: NotRequired[int | None]
    type: str


class GraderRunResult(TypedDict):
    """The reward of one response."""

    metadata: GraderRunMetadata
    model_grader_token_usage_per_model: NotRequired[dict[str, Any]]
    reward: float
    sub_rewards: NotRequired[dict[str, float]]


class GraderValidated(TypedDict):
    """A grader that can be used, with its defaults filled in."""

    grader: dict[str, Any]
    item_fields: list[str]


class Health(TypedDict):
    """The process is up."""

    status: Literal["ok"]


class JobError(TypedDict):
    """Why a job failed."""

    code: str
    evidence: list[str]
    message: str
    param: NotRequired[str | None]
    retryable: bool
    stage: NotRequired[str | None]


class JobEstimate(TypedDict):
    """What a job will take."""

    flops: float | None
    flops_per_step: float | None
    max_response_tokens: int
    memory_bytes: MemoryEstimate | None
    responses: int
    responses_per_step: int


class JobEventObject(TypedDict):
    """A message of a job."""

    created_at: int
    data: dict[str, Any]
    id: str
    kind: str
    level: Literal["info", "warn", "error"]
    message: str
    object: Literal["fine_tuning.job.event"]
    seq: int
    type: Literal["message"]


class JobObject(TypedDict):
    """A job: the dialect's fields, then what a reinforcement job has besides."""

    attempt: int
    base_checkpoint: str | None
    created_at: int
    error: JobError | None
    estimated_finish: int | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: ResolvedHyperparameters
    id: str
    integrations: list[Any]
    latest: dict[str, float | None]
    latest_evaluation: dict[str, float | None]
    metadata: dict[str, str]
    method: dict[str, Any]
    model: str
    name: str | None
    num_steps: int
    object: Literal["fine_tuning.job"]
    organization_id: str
    priority: int
    queue: Queue | None
    result_files: list[str]
    seed: int
    stage: str | None
    started_at: int | None
    state: JobState
    status: str
    step: int
    stop_reason: str | None
    suffix: str | None
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    worker: str | None


class JobPreview(TypedDict):
    """What a job would be: every default and "auto" resolved, nothing queued."""

    base_checkpoint: str | None
    estimate: JobEstimate
    method: dict[str, Any]
    model: str
    num_steps: int
    object: Literal["fine_tuning.job.preview"]
    training_file: str
    validation_file: str | None


class JobSeries(TypedDict):
    """The points of one of several jobs."""

    algorithm: str
    data: list[MetricsPoint]
    fine_tuning_job_id: str
    model: str
    name: str | None
    num_points: int
    state: JobState
    suffix: str | None


JobState = Literal[
    "validating_files",
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "recovering",
    "exporting",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
]


class LeaseObject(TypedDict):
    """A job in a worker's hands."""

    attempt: int
    fine_tuning_job_id: str | None
    lease_until: int
    state: JobState


class LengthBin(TypedDict):
    """How many prompts have a length from `start` up to, not including, `stop`."""

    count: int
    start: int
    stop: int


class Lengths(TypedDict):
    """How long the prompts are."""

    histogram: list[LengthBin]
    max: int
    mean: float
    median: float
    min: int
    p95: int


class LikelyToken(TypedDict):
    """A token that might have stood there."""

    bytes: list[int] | None
    logprob: float
    token: str


class LogText(TypedDict):
    """A stretch of the trainer's log, in whole lines."""

    has_more: bool
    next_offset: int
    num_bytes: int
    object: Literal["fine_tuning.job.log"]
    offset: int
    text: str


class Manifest(TypedDict):
    """All that is needed to do a run again, and to know that it is the same one."""

    attempts: int
    base_checkpoint: str | None
    checkpoints: list[CheckpointDigest]
    config_sha256: str
    created_at: int
    device: str | None
    fine_tuning_job_id: str
    grader_sha256: str
    method: dict[str, Any]
    model: str
    num_parameters: int | None
    num_steps: int
    object: Literal["fine_tuning.job.manifest"]
    seed: int
    service_version: str
    training_file: FileDigest
    validation_file: FileDigest | None
    versions: dict[str, str]


class MaskFigures(TypedDict):
    """What a mask silences."""

    grad_share: float
    num_masked: int
    ppm: float
    responses_touched: int


class MaskSimulation(TypedDict):
    """What other thresholds would have silenced on the recorded rollouts of a step."""

    actual: MaskFigures
    entering: TokenSet
    fine_tuning_job_id: str
    funnel: Funnel
    is_exact: bool
    leaving: TokenSet
    minibatches: list[MinibatchThresholds]
    note: str | None
    object: Literal["fine_tuning.job.mask_simulation"]
    simulated: MaskFigures
    step: int
    thresholds: SimulatedThresholds


class MaskedTokens(TypedDict):
    """The silenced tokens of a step, in the order asked for."""

    data: list[TokenInContext]
    has_more: bool
    most_frequent: list[TokenCount]
    num_masked: int
    num_tokens: int
    object: Literal["list"]
    step: int


class MemoryEstimate(TypedDict):
    """Bytes at the peak, by kind of machine."""

    cpu: int
    gpu: int


class MetricsList(TypedDict):
    """Points in the order of the job's sequence."""

    data: list[MetricsPoint]
    has_more: bool
    last_seq: int
    num_points: int
    object: Literal["list"]


class MetricsPoint(TypedDict):
    """The metrics of one step."""

    attempt: int
    created_at: float
    kind: Literal["train", "evaluation"]
    object: Literal["fine_tuning.job.metrics"]
    seq: int
    step: int
    values: dict[str, float | None]


class MinibatchThresholds(TypedDict):
    """What the thresholds came to in one mini-batch."""

    error: float
    num_population: int
    tau_h: float | None
    tau_p: float
    undecided: int


class ModelObject(TypedDict):
    """A base model that jobs may name."""

    created: int
    id: str
    object: Literal["model"]
    owned_by: str


class ModelUsage(TypedDict):
    """What jobs on one base model took."""

    model: str
    num_jobs: int
    running_s: float
    steps: int
    trained_tokens: int


class Overlap(TypedDict):
    """Prompts that stand in the other file too."""

    count: int
    file_id: str
    lines: list[int]


class Plane(TypedDict):
    """The tokens of one sign of the advantage."""

    cells: list[PlaneCell]
    masked: list[PlanePoint]
    num_tokens: int
    quadrants: dict[str, int]


class PlaneCell(TypedDict):
    """The tokens of one small square of the plane of probability and entropy."""

    count: int
    entropy: float
    grad_norm: float
    p: float


class PlanePoint(TypedDict):
    """One token of the plane."""

    entropy: float
    p: float


class ProbeExample(TypedDict):
    """A response and what it got; both texts may be cut."""

    error: str | None
    note: str | None
    parts: dict[str, float]
    prompt: str
    response: str
    score: float


class ProbeFigures(TypedDict):
    """What one grader made of the responses; what it could not judge is in no score, but in `errors`."""

    error_share: float
    errors: dict[str, int]
    latency_p50_s: float
    latency_p95_s: float
    maximum: float | None
    mean: float | None
    minimum: float | None
    name: str
    notes: dict[str, int]
    num_distinct: int
    num_judged: int
    share_all_one: float
    share_all_zero: float
    share_equal: float
    std: float | None
    type: str


class Queue(TypedDict):
    """Where a waiting job stands."""

    eta_high: NotRequired[int | None]
    eta_low: NotRequired[int | None]
    position: int
    reason: str


class QueueState(TypedDict):
    """How busy the workers are, and where your waiting jobs stand."""

    data: list[QueuedJob]
    object: Literal["queue"]
    running: int
    slots: int
    waiting: int
    workers: int


class QueuedJob(TypedDict):
    """A job of yours that waits."""

    id: str
    name: str | None
    position: int
    priority: int
    reason: str
    state: JobState


class Readiness(TypedDict):
    """Whether jobs can be taken and run, and if not, what is missing."""

    checks: dict[str, str]
    status: Literal["ok", "unavailable"]


class Refusal(TypedDict):
    """One reason for which rows are refused, and how many are."""

    count: int
    examples: list[RefusedRow]
    reason: str


class RefusedRow(TypedDict):
    """A row that a job would refuse."""

    detail: str
    line: int


class ResolvedHyperparameters(TypedDict):
    """The dialect's short list, every "auto" resolved."""

    batch_size: int
    learning_rate_multiplier: float
    n_epochs: int


class RolloutDetail(TypedDict):
    """A recorded response with its whole text and every token."""

    advantage: float
    fine_tuning_job_id: str
    finish: str
    id: str
    is_complete: bool
    length: int
    mean_entropy: float | None
    min_p: float
    num_candidates: int
    num_clipped: int
    num_masked: int
    object: Literal["fine_tuning.job.rollout"]
    pinned: bool
    place: int
    preview: str
    prompt: str
    prompt_index: int
    prompt_text: str
    response_text: str
    reward: float
    sample_index: int
    step: int
    tokens: list[TokenObject]


class RolloutObject(TypedDict):
    """A recorded response."""

    advantage: float
    fine_tuning_job_id: str
    finish: str
    id: str
    length: int
    mean_entropy: float | None
    min_p: float
    num_candidates: int
    num_clipped: int
    num_masked: int
    object: Literal["fine_tuning.job.rollout"]
    pinned: bool
    place: int
    preview: str
    prompt: str
    prompt_index: int
    reward: float
    sample_index: int
    step: int


class SimulatedThresholds(TypedDict):
    """The thresholds that were simulated."""

    entropy_quantile: float
    entropy_scope: Literal["candidates", "all_tokens"]
    tau_p: float | None


class StreamTicket(TypedDict):
    """Opens one job's streams and downloads to a browser."""

    expires_at: int
    object: Literal["fine_tuning.job.stream_ticket"]
    ticket: str


class TokenCount(TypedDict):
    """How often one token of the vocabulary was silenced in the step."""

    count: int
    token: str
    token_id: int


class TokenInContext(TypedDict):
    """A token, where it stands, and the text around it."""

    advantage: float
    after: str
    before: str
    entropy: float | None
    grad_norm: float | None
    p: float
    position: int
    rollout_id: str
    token: str
    token_id: int


class TokenObject(TypedDict):
    """One token and all that the method knew of it."""

    advantage: float
    clipped: bool
    entropy: float | None
    grad_norm: float | None
    id: int
    logprob: float | None
    low_h: bool
    low_p: bool
    masked: bool
    old_logprob: float | None
    p: float | None
    position: int
    positive_advantage: bool
    ratio: float | None
    sampler_logprob: float | None
    scored: bool
    tau_h: float | None
    tau_p: float
    text: str
    weight: float


class TokenQuadrants(TypedDict):
    """A recorded step's tokens by probability and entropy, on logarithmic axes."""

    entropy_decades: list[Any]
    fine_tuning_job_id: str
    negative: Plane
    num_tokens: int
    object: Literal["fine_tuning.job.quadrants"]
    p_decades: list[Any]
    positive: Plane
    step: int
    tau_h: list[float]
    tau_p: list[float]


class TokenSet(TypedDict):
    """Some tokens; `data` holds the first of them, largest gradient first."""

    count: int
    data: list[TokenInContext]


class TokenUsage(TypedDict):
    """Tokens read and written."""

    completion_tokens: int
    prompt_tokens: int
    total_tokens: int


class Usage(TypedDict):
    """What your jobs took and what is kept of them."""

    created_after: int | None
    created_before: int | None
    jobs: dict[str, int]
    models: list[ModelUsage]
    num_jobs: int
    object: Literal["usage"]
    running_s: float
    steps: int
    stored_checkpoint_bytes: int
    stored_file_bytes: int
    trained_tokens: int


class WorkerObject(TypedDict):
    """A worker, and what it holds."""

    is_alive: bool
    leases: list[LeaseObject]
    name: str
    object: Literal["worker"]
    seen_at: int
    slots: int
