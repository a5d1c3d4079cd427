"""The tables. The rows are the truth; queues and caches may be lost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, MetaData, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from api.lifecycle import CLAIMABLE, LEASED

Json = dict[str, Any]


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        int: BigInteger,
    }


class ApiKey(Base):
    """A bearer key, known by its SHA-256 alone."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    prefix: Mapped[str]
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "tenant", "number"),)


class File(Base):
    """An uploaded file; its bytes lie in the files folder under its id."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    tenant: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index(None, "tenant", "number"),)


class Job(Base):
    """One job: what was asked, where it stands, and who may write to it (`fence`)."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    tenant: Mapped[str]
    # What was asked, every "auto" resolved.
    model: Mapped[str]
    training_file: Mapped[str] = mapped_column(ForeignKey("files.id"))
    validation_file: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    suffix: Mapped[str | None]
    name: Mapped[str | None]
    # The checkpoint that it begins at, where that is not the base model; its folder is kept for as long.
    base_checkpoint: Mapped[str | None]
    base_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    base_step: Mapped[int | None]
    seed: Mapped[int]
    user_metadata: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    method: Mapped[Json]
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    # Where it stands.
    state: Mapped[str] = mapped_column(index=True)
    stop_reason: Mapped[str | None]
    error: Mapped[Json | None]
    step: Mapped[int] = mapped_column(server_default=text("0"))
    num_steps: Mapped[int]
    trained_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    stage: Mapped[str | None]
    # Who may write: the fence rises with every claim; the lease runs by the database's clock.
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    attempts_without_progress: Mapped[int] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    cancel_requested_at: Mapped[datetime | None]
    # The job's one sequence, and how far the spool has been shipped (bytes).
    last_seq: Mapped[int] = mapped_column(server_default=text("0"))
    spool_offset: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index(None, "tenant", "number"),
        # A claim takes the first of those that wait, however many wait and however many have ended.
        Index(
            "ix_jobs_waiting",
            text("priority DESC"),
            "number",
            postgresql_where=text("state IN ('queued', 'recovering')"),
        ),
    )


class JobEvent(Base):
    """A message of a job, in the job's one sequence (shared with its metrics)."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    level: Mapped[str]
    kind: Mapped[str]
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(server_default=text("'{}'"))


class StepMetrics(Base):
    """The metrics of one step, once per (job, step) and kind (`train` or `evaluation`)."""

    __tablename__ = "step_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int]
    fence: Mapped[int]
    created_at: Mapped[datetime]
    values: Mapped[Json]

    __table_args__ = (UniqueConstraint("job_id", "seq"),)


class StepBucket(Base):
    """A stretch of steps that will get no more rows: how many it has, and the first and last in the job's sequence."""

    __tablename__ = "step_buckets"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True)
    num_rows: Mapped[int]
    first_seq: Mapped[int]
    last_seq: Mapped[int]


class CurveBucket(Base):
    """One key over such a stretch: its extremes and where they stand, and sums over its finite values."""

    __tablename__ = "curve_buckets"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True)
    least: Mapped[float]
    greatest: Mapped[float]
    total: Mapped[float]
    squares: Mapped[float]
    least_seq: Mapped[int]
    greatest_seq: Mapped[int]
    num_values: Mapped[int]


class Checkpoint(Base):
    """A whole checkpoint in the artifact store."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    step: Mapped[int]
    final: Mapped[bool]
    files: Mapped[list[Any]]
    metrics: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (UniqueConstraint("job_id", "step"),)


class Rollout(Base):
    """One recorded response; its tokens lie in the step's parquet file, from row `first_token` on."""

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    step: Mapped[int]
    place: Mapped[int]
    first_token: Mapped[int]
    prompt_index: Mapped[int]
    sample_index: Mapped[int]
    reward: Mapped[float]
    advantage: Mapped[float]
    length: Mapped[int]
    finish: Mapped[str]
    num_candidates: Mapped[int]
    num_masked: Mapped[int]
    num_clipped: Mapped[int]
    min_p: Mapped[float]
    mean_entropy: Mapped[float | None]
    prompt: Mapped[str]
    preview: Mapped[str]
    # Its whole step is kept, however old, while one of its responses is pinned.
    pinned: Mapped[bool] = mapped_column(server_default=text("false"))
    # The words of the whole prompt and response, to search by.
    words: Mapped[str] = mapped_column(TSVECTOR, server_default=text("''"), deferred=True)

    __table_args__ = (
        UniqueConstraint("job_id", "step", "place"),
        Index("ix_rollouts_words", "words", postgresql_using="gin"),
    )


class Completion(Base):
    """A model that is asked, until its answer has been fetched; kept for an hour at most."""

    __tablename__ = "completions"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    tenant: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    base_job_id: Mapped[str | None]
    base_step: Mapped[int | None]
    ask: Mapped[Json]
    state: Mapped[str] = mapped_column(index=True)
    reply: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    taken_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """The stored answer to a POST, for 24 hours per tenant."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int]
    response: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class StreamTicket(Base):
    """Opens one job's streams and downloads to a browser, which can send no key; known by its SHA-256 alone."""

    __tablename__ = "stream_tickets"

    ticket_sha256: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    # Whose it is: it ends when the key is revoked. Null for one that was made before this was written down.
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime] = mapped_column(index=True)


class WorkerBeat(Base):
    """The last sign of life of each worker."""

    __tablename__ = "worker_beats"

    name: Mapped[str] = mapped_column(primary_key=True)
    slots: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


CLAIMABLE_STATES = [state.value for state in CLAIMABLE]
LEASED_STATES = [state.value for state in LEASED]
