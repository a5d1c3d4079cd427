"""Sums over jobs, files and checkpoints: what a tenant has used, and how busy the platform is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, column, func, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from api.errors import TooManyRequests
from api.lifecycle import CLAIMABLE, TERMINAL
from api.store.tables import LEASED_STATES, Checkpoint, File, Job, WorkerBeat

_DAY_S = 86400.0
_QUOTAS = 7_240_613  # tells this lock from any other on the same name
_ENDED = [state.value for state in TERMINAL]


@dataclass(frozen=True)
class Busyness:
    """Of all tenants together."""

    workers: int
    slots: int
    jobs: dict[str, int]
    """By state."""

    @property
    def running(self) -> int:
        """Jobs in a worker's hands."""
        return sum(self.jobs.get(state, 0) for state in LEASED_STATES)

    @property
    def waiting(self) -> int:
        """Jobs that a worker could take."""
        return sum(self.jobs.get(state.value, 0) for state in CLAIMABLE)


def read_busyness(session: Session, *, worker_silent_s: float) -> Busyness:
    """Workers alive, and jobs by state."""
    alive = WorkerBeat.seen_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, worker_silent_s)
    beats = session.execute(select(func.count(), func.coalesce(func.sum(WorkerBeat.slots), 0)).where(alive)).one()
    states = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    return Busyness(workers=beats[0], slots=int(beats[1]), jobs={row[0]: row[1] for row in states})


@dataclass(frozen=True)
class WorkerState:
    """A worker and the jobs it holds, of all tenants."""

    beat: WorkerBeat
    is_alive: bool
    jobs: list[Job]


def read_workers(session: Session, *, worker_silent_s: float) -> list[WorkerState]:
    """The workers of the last day by name."""
    age = func.extract("epoch", func.now() - WorkerBeat.seen_at)
    beats = session.execute(select(WorkerBeat, age).where(age < _DAY_S).order_by(WorkerBeat.name)).all()
    held = session.scalars(select(Job).where(Job.state.in_(LEASED_STATES)).order_by(Job.number)).all()
    return [
        WorkerState(beat, float(seconds) < worker_silent_s, [job for job in held if job.worker == beat.name])
        for beat, seconds in beats
    ]


def waiting_jobs(session: Session, tenant: str) -> Sequence[Job]:
    """The tenant's jobs that a worker could take, first things first."""
    states = [state.value for state in CLAIMABLE]
    query = select(Job).where(Job.tenant == tenant, Job.state.in_(states))
    return session.scalars(query.order_by(Job.priority.desc(), Job.number).limit(100)).all()


def count_by_state(session: Session, tenant: str, after: int | None, before: int | None) -> dict[str, int]:
    """The tenant's jobs by state."""
    query = select(Job.state, func.count()).where(Job.tenant == tenant, *_created(after, before)).group_by(Job.state)
    return {row[0]: row[1] for row in session.execute(query)}


def sum_by_model(session: Session, tenant: str, after: int | None, before: int | None) -> list[dict[str, Any]]:
    """What the tenant's jobs took, by base model."""
    lasted = func.extract("epoch", func.coalesce(Job.finished_at, func.now()) - Job.started_at)
    query = (
        select(
            Job.model,
            func.count().label("num_jobs"),
            func.sum(Job.trained_tokens).label("trained_tokens"),
            func.sum(Job.step).label("steps"),
            func.coalesce(func.sum(lasted), 0).label("running_s"),
        )
        .where(Job.tenant == tenant, *_created(after, before))
        .group_by(Job.model)
        .order_by(Job.model)
    )
    return [
        {
            "model": row.model,
            "num_jobs": row.num_jobs,
            "trained_tokens": int(row.trained_tokens),
            "steps": int(row.steps),
            "running_s": float(row.running_s),
        }
        for row in session.execute(query)
    ]


def stored_file_bytes(session: Session, tenant: str) -> int:
    """Bytes of the tenant's uploaded files."""
    return int(session.scalar(select(func.coalesce(func.sum(File.bytes), 0)).where(File.tenant == tenant)) or 0)


def stored_checkpoint_bytes(session: Session, tenant: str) -> int:
    """Bytes of the tenant's checkpoints."""
    entries = func.jsonb_array_elements(Checkpoint.files).table_valued(column("value", JSONB)).lateral()
    size = func.sum(entries.c.value["bytes"].astext.cast(BigInteger))
    query = select(func.coalesce(size, 0)).select_from(Checkpoint).join(Job, Job.id == Checkpoint.job_id)
    return int(session.scalar(query.join(entries, true()).where(Job.tenant == tenant)) or 0)


def hold_quotas(session: Session, tenant: str) -> None:
    """Lets nobody else count what this tenant has until the transaction ends: two at once would both find room."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(tenant, _QUOTAS))))


def check_live_jobs(session: Session, tenant: str, *, most: int) -> None:
    """Raises TooManyRequests when the tenant has as many unfinished jobs as it may have; add the next right then."""
    hold_quotas(session, tenant)
    query = select(func.count()).select_from(Job).where(Job.tenant == tenant, Job.state.not_in(_ENDED))
    if (session.scalar(query) or 0) >= most:
        raise TooManyRequests(f"You have {most} jobs that have not ended, the most allowed.", code="quota_exceeded")


def check_stored_bytes(session: Session, tenant: str, num_bytes: int, *, most: int) -> None:
    """Raises TooManyRequests when the tenant may not keep so many more bytes of files. Add the file right behind it."""
    hold_quotas(session, tenant)
    kept = stored_file_bytes(session, tenant)
    if kept + num_bytes > most:
        raise TooManyRequests(
            f"Your files hold {kept} bytes and this one {num_bytes}; the most allowed is {most}. Delete some.",
            code="quota_exceeded",
        )


def _created(after: int | None, before: int | None) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if after is not None:
        bounds.append(Job.created_at >= datetime.fromtimestamp(after, UTC))
    if before is not None:
        bounds.append(Job.created_at < datetime.fromtimestamp(before, UTC))
    return bounds
