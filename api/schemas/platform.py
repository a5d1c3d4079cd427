"""Keys, the queue and what a tenant has used, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.lifecycle import JobState
from api.schemas.wire import Wire, epoch
from api.store.keys import ALL_SCOPES, Scope
from api.store.tables import ApiKey
from stapo_core.config import Strict


class ApiKeyCreate(Strict):
    """A key to make."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """What you call the key: who or what uses it."""
    scopes: Annotated[list[Scope], Field(min_length=1)] = list(ALL_SCOPES)  # noqa: RUF012  # pydantic copies it
    """What the key may do: read jobs, start and stop them, download, and manage keys."""
    expires_in_s: Annotated[float, Field(ge=1.0, le=10 * 365 * 86400.0)] | None = None
    """Seconds after which the key ends; it does not end by itself when omitted."""


class ApiKeyObject(Wire):
    """A key, without its text."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    prefix: str
    """The first characters of the key, to tell it from others."""
    scopes: list[str]
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    """To the minute."""
    revoked_at: int | None

    @classmethod
    def of(cls, row: ApiKey, **more: Any) -> ApiKeyObject:
        """The wire form of a row."""
        moments = {name: getattr(row, name) for name in ("expires_at", "last_used_at", "revoked_at")}
        return cls(
            id=row.id,
            name=row.name,
            prefix=row.prefix,
            scopes=row.scopes,
            created_at=epoch(row.created_at),
            **{name: epoch(moment) if moment else None for name, moment in moments.items()},
            **more,
        )


class ApiKeyCreated(ApiKeyObject):
    """A new key with its text, which is shown this once."""

    key: str
    """Keep it: only its SHA-256 is stored."""


class QueuedJob(Wire):
    """A job of yours that waits."""

    id: str
    name: str | None
    state: JobState
    position: int
    """Its place among all that wait, from 1."""
    priority: int
    reason: str


class QueueState(Wire):
    """How busy the workers are, and where your waiting jobs stand."""

    object: Literal["queue"] = "queue"
    workers: int
    """Workers that gave a sign of life within a lease."""
    slots: int
    """Jobs that they can run at a time."""
    running: int
    """Jobs in their hands, of all tenants."""
    waiting: int
    """Jobs that wait, of all tenants."""
    data: list[QueuedJob]


class LeaseObject(Wire):
    """A job in a worker's hands."""

    fine_tuning_job_id: str | None
    """Null for another tenant's."""
    state: JobState
    attempt: int
    lease_until: int
    """When another worker may take the job, unless this one renews its lease before."""


class WorkerObject(Wire):
    """A worker, and what it holds."""

    object: Literal["worker"] = "worker"
    name: str
    slots: int
    """Jobs that it can run at a time."""
    seen_at: int
    """Its last sign of life."""
    is_alive: bool
    """Whether that was within a lease."""
    leases: list[LeaseObject]


class ModelUsage(Wire):
    """What jobs on one base model took."""

    model: str
    num_jobs: int
    trained_tokens: int
    steps: int
    running_s: float
    """Seconds from first start to end, pauses included."""


class Usage(Wire):
    """What your jobs took and what is kept of them."""

    object: Literal["usage"] = "usage"
    created_after: int | None
    created_before: int | None
    num_jobs: int
    jobs: dict[str, int]
    """By state."""
    trained_tokens: int
    steps: int
    running_s: float
    stored_file_bytes: int
    """Of uploaded files, whenever they came."""
    stored_checkpoint_bytes: int
    """Of checkpoints, whenever they came."""
    models: list[ModelUsage]
