"""The wire: what goes in and comes out, around `stapo_core.config`; the words are the fine-tuning dialect's.

Objects that come in refuse unknown fields; objects that go out list theirs, so that no column leaks by accident.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.lifecycle import STATUS, JobState
from api.store.jobs import QueuePlace
from api.store.tables import Checkpoint, File, Job, JobEvent, StepMetrics
from stapo_core.config import Grader, Positive, Strict, TrainConfig

Item = TypeVar("Item", bound=BaseModel)
Auto = Literal["auto"]
PositiveFloat = Annotated[float, Field(gt=0.0)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class Wire(BaseModel):
    """What every outgoing object shares: each field's sentence is its documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True)


# --- errors -------------------------------------------------------------------------------------------------------


class Fault(Wire):
    """One fault in the input."""

    pointer: str
    """JSON pointer (RFC 6901) to the value at fault."""
    detail: str
    """What is wrong and how to mend it."""


class DialectError(Wire):
    """The same refusal in the dialect's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(Wire):
    """A refusal (RFC 9457), with the dialect's `error` member beside it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    param: str | None = None
    request_id: str
    errors: list[Fault] = []
    error: DialectError


# --- lists, files, models -----------------------------------------------------------------------------------------


class ListOf(Wire, Generic[Item]):
    """A page of a list; `after=<last_id>` asks for the next one."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class FileObject(Wire):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    sha256: str
    """SHA-256 of the bytes, in hexadecimal."""

    @classmethod
    def of(cls, row: File) -> FileObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=epoch(row.created_at),
            filename=row.filename,
            purpose=row.purpose,
            sha256=row.sha256,
        )


class FileDeleted(Wire):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class ModelObject(Wire):
    """A base model that jobs may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


# --- jobs ---------------------------------------------------------------------------------------------------------


class Hyperparameters(Strict):
    """The dialect's short list; each names a field of `config`, and "auto" leaves that field as it is."""

    n_epochs: Positive | Auto = "auto"
    """Passes over the training file, where config.num_steps is omitted; auto is 1."""
    batch_size: Positive | Auto = "auto"
    """Prompts per step (config.batch.num_prompts)."""
    learning_rate_multiplier: PositiveFloat | Auto = "auto"
    """Multiplies config.optimizer.learning_rate."""
    eval_interval: Positive | Auto = "auto"
    """Steps between evaluations (config.evaluation.every_steps)."""
    eval_samples: Positive | Auto = "auto"
    """Responses per validation problem (config.evaluation.num_samples)."""


class Reinforcement(Strict):
    """Reinforcement fine-tuning: what is rewarded and how the policy is updated."""

    grader: Grader
    """What a response is rewarded for."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """The dialect's short list."""
    config: TrainConfig = TrainConfig()
    """How the run trains, in full."""


class Method(Strict):
    """The method of fine-tuning; this service offers reinforcement."""

    type: Literal["reinforcement"]
    """Always `reinforcement`."""
    reinforcement: Reinforcement
    """Its parameters."""


class JobCreate(Strict):
    """A job to run."""

    model: str
    """A base model of GET /v1/models."""
    training_file: str
    """Id of an uploaded JSONL file of problems."""
    validation_file: str | None = None
    """Id of an uploaded JSONL file that is scored before, during and after training."""
    method: Method
    """How to fine-tune."""
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Letters, digits, `_` and `-` that end up in the name of the fine-tuned model."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """All randomness of the run follows from it; drawn and given back when omitted."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    """Up to 16 pairs of your own."""


class ResolvedHyperparameters(Wire):
    """The dialect's short list, every "auto" resolved."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


class JobError(Wire):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None
    stage: str | None = None
    retryable: bool = False
    evidence: list[str] = []
    """The last lines of the trainer's log."""


class Queue(Wire):
    """Where a waiting job stands."""

    position: int
    reason: str


class JobObject(Wire):
    """A job: the dialect's fields, then what a reinforcement job has besides."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    """The dialect's word for `state`."""
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    hyperparameters: ResolvedHyperparameters
    method: dict[str, Any]
    """As asked, with every default and "auto" resolved."""
    seed: int
    metadata: dict[str, str]
    error: JobError | None
    estimated_finish: int | None
    result_files: list[str] = []
    integrations: list[Any] = []
    state: JobState
    """Where the job stands, in full."""
    stage: str | None
    """What the trainer is doing."""
    suffix: str | None
    priority: int
    step: int
    num_steps: int
    stop_reason: str | None
    attempt: int
    """How many times a worker has taken the job."""
    worker: str | None
    started_at: int | None
    latest: dict[str, float | None]
    """The metrics of the newest step."""
    latest_evaluation: dict[str, float | None]
    """The metrics of the newest evaluation."""
    queue: Queue | None


class JobFacts(BaseModel):
    """What a job's wire form takes from other rows."""

    latest: dict[str, float | None] = {}
    latest_evaluation: dict[str, float | None] = {}
    place: QueuePlace | None = None
    final_checkpoint_id: str | None = None


def job_object(row: Job, facts: JobFacts) -> JobObject:
    """The wire form of a job."""
    state = JobState(row.state)
    hyperparameters = row.method["reinforcement"]["hyperparameters"]
    return JobObject(
        id=row.id,
        created_at=epoch(row.created_at),
        finished_at=epoch(row.finished_at) if row.finished_at else None,
        model=row.model,
        fine_tuned_model=model_name(row) if facts.final_checkpoint_id else None,
        organization_id=row.tenant,
        status=STATUS[state],
        trained_tokens=row.trained_tokens,
        training_file=row.training_file,
        validation_file=row.validation_file,
        hyperparameters=ResolvedHyperparameters(
            **{k: hyperparameters[k] for k in ResolvedHyperparameters.model_fields}
        ),
        method=row.method,
        seed=row.seed,
        metadata=row.user_metadata,
        error=JobError(**row.error) if row.error else None,
        estimated_finish=_estimated_finish(row, state, facts.latest),
        state=state,
        stage=row.stage,
        suffix=row.suffix,
        priority=row.priority,
        step=row.step,
        num_steps=row.num_steps,
        stop_reason=row.stop_reason,
        attempt=row.fence,
        worker=row.worker,
        started_at=epoch(row.started_at) if row.started_at else None,
        latest=facts.latest,
        latest_evaluation=facts.latest_evaluation,
        queue=Queue(position=facts.place.position, reason=facts.place.reason) if facts.place else None,
    )


def model_name(row: Job) -> str:
    """The name of the model that a job makes."""
    return f"ft:{row.model}:{row.suffix or ''}:{row.id.removeprefix('ftjob-')}"


def _estimated_finish(row: Job, state: JobState, latest: dict[str, float | None]) -> int | None:
    step_s = latest.get("speed/step_s")
    if state is not JobState.RUNNING or not step_s:
        return None
    return int(datetime.now().timestamp() + step_s * (row.num_steps - row.step))


# --- watching -----------------------------------------------------------------------------------------------------


class JobEventObject(Wire):
    """A message of a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    seq: int
    """Place in the job's one sequence, shared with its metrics."""
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    kind: str
    """What the message is about: created, state, stage, checkpoint, evaluation, warning, worker_lost, ..."""
    data: dict[str, Any]

    @classmethod
    def of(cls, row: JobEvent) -> JobEventObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            seq=row.seq,
            created_at=epoch(row.created_at),
            level=row.level,
            message=row.message,
            kind=row.kind,
            data=row.data,
        )


class MetricsPoint(Wire):
    """The metrics of one step."""

    object: Literal["fine_tuning.job.metrics"] = "fine_tuning.job.metrics"
    seq: int
    kind: Literal["train", "evaluation"]
    step: int
    created_at: float
    attempt: int
    values: dict[str, float | None]
    """By `area/name`; null stands for a value that was not finite."""

    @classmethod
    def of(cls, row: StepMetrics, keys: set[str] | None = None) -> MetricsPoint:
        """The wire form of a row, limited to `keys`."""
        values = row.values if keys is None else {key: row.values[key] for key in keys if key in row.values}
        return cls(
            seq=row.seq,
            kind=row.kind,
            step=row.step,
            created_at=row.created_at.timestamp(),
            attempt=row.fence,
            values=values,
        )


class MetricsList(Wire):
    """Points in the order of the job's sequence."""

    object: Literal["list"] = "list"
    data: list[MetricsPoint]
    has_more: bool = False
    last_seq: int
    """Follow the stream from here to miss nothing."""
    num_points: int
    """Points before thinning."""


class JobProgress(Wire):
    """Where a job stands, as its streams say it."""

    state: JobState
    stage: str | None
    step: int
    num_steps: int


class StreamTicket(Wire):
    """Opens one job's streams and downloads to a browser."""

    object: Literal["fine_tuning.job.stream_ticket"] = "fine_tuning.job.stream_ticket"
    ticket: str
    expires_at: int


# --- results ------------------------------------------------------------------------------------------------------


class CheckpointFileObject(Wire):
    """One file of a checkpoint."""

    path: str
    bytes: int
    sha256: str


class CheckpointObject(Wire):
    """A whole checkpoint that can be downloaded."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]
    final: bool
    bytes: int
    files: list[CheckpointFileObject]

    @classmethod
    def of(cls, row: Checkpoint, job: Job) -> CheckpointObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            created_at=epoch(row.created_at),
            fine_tuning_job_id=job.id,
            fine_tuned_model_checkpoint=f"{model_name(job)}:ckpt-step-{row.step}",
            step_number=row.step,
            metrics={"step": row.step, **row.metrics},
            final=row.final,
            bytes=sum(file["bytes"] for file in row.files),
            files=[CheckpointFileObject(**file) for file in row.files],
        )


# --- health -------------------------------------------------------------------------------------------------------


class Health(Wire):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(Wire):
    """Whether jobs can be taken and run, and if not, what is missing."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
    """"ok" or a sentence, for database, broker, storage and worker."""


def epoch(moment: datetime) -> int:
    """Seconds since the epoch, as the dialect has its times."""
    return int(moment.timestamp())
