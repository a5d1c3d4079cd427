"""A job on the wire: the dialect's fields, then what a reinforcement job has besides."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from api.lifecycle import STATUS, JobState
from api.schemas.wire import Wire, epoch
from api.store.jobs import QueuePlace
from api.store.tables import Job


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
    evidence: tuple[str, ...] = ()
    """The last lines of the trainer's log."""


class Queue(Wire):
    """Where a waiting job stands."""

    position: int
    reason: str
    eta_low: int | None = None
    """When it starts at the soonest, as things stand; null while no worker is alive."""
    eta_high: int | None = None
    """When it starts at the latest, if no job goes first that does not now; null where the running jobs before it have
    told no pace yet, and where more jobs go first than there are slots, for how long those take nobody knows."""


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
    result_files: tuple[str, ...] = ()
    integrations: tuple[Any, ...] = ()
    state: JobState
    """Where the job stands, in full."""
    stage: str | None
    """What the trainer is doing."""
    suffix: str | None
    name: str | None
    base_checkpoint: str | None
    """The checkpoint that the job began at, where that is not the base model."""
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


class MemoryEstimate(Wire):
    """Bytes at the peak, by kind of machine."""

    cpu: int
    gpu: int


class JobEstimate(Wire):
    """What a job will take."""

    responses_per_step: int
    responses: int
    """Of the whole run."""
    max_response_tokens: int
    """Of the whole run, were every response as long as it may be."""
    memory_bytes: MemoryEstimate | None
    """Null for a model whose sizes are not known."""
    flops_per_step: float | None
    """Floating-point operations, responses at their longest."""
    flops: float | None


class JobPreview(Wire):
    """What a job would be: every default and "auto" resolved, nothing queued."""

    object: Literal["fine_tuning.job.preview"] = "fine_tuning.job.preview"
    model: str
    base_checkpoint: str | None
    training_file: str
    validation_file: str | None
    method: dict[str, Any]
    num_steps: int
    estimate: JobEstimate


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
        name=row.name,
        base_checkpoint=row.base_checkpoint,
        priority=row.priority,
        step=row.step,
        num_steps=row.num_steps,
        stop_reason=row.stop_reason,
        attempt=row.fence,
        worker=row.worker,
        started_at=epoch(row.started_at) if row.started_at else None,
        latest=facts.latest,
        latest_evaluation=facts.latest_evaluation,
        queue=Queue(**asdict(facts.place)) if facts.place else None,
    )


def model_name(row: Job) -> str:
    """The name of the model that a job makes."""
    return f"ft:{row.model}:{row.suffix or ''}:{row.id.removeprefix('ftjob-')}"


def _estimated_finish(row: Job, state: JobState, latest: dict[str, float | None]) -> int | None:
    step_s = latest.get("speed/step_s")
    if state is not JobState.RUNNING or not step_s:
        return None
    return int(datetime.now().timestamp() + step_s * (row.num_steps - row.step))
