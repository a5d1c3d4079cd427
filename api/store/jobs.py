"""Jobs as their tenant sees them: create, read, and ask for a change. What workers do stands in `leases`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from api.errors import NotFound
from api.lifecycle import CLAIMABLE, LEASED, STATUS, JobState, find_target
from api.store.events import add_event, move
from api.store.ids import JOB, new_id
from api.store.pages import Cursor, Order, Page, read_page
from api.store.tables import CLAIMABLE_STATES, LEASED_STATES, Job


@dataclass(frozen=True)
class Base:
    """The checkpoint that a job begins at."""

    checkpoint_id: str
    job_id: str
    step: int


@dataclass(frozen=True)
class NewJob:
    """What was asked, every "auto" resolved."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    method: dict[str, Any]
    num_steps: int
    metadata: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    base: Base | None = None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are wanted; None means all."""

    status: str | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QueuePlace:
    """How many jobs go first, and what this one waits for."""

    position: int
    reason: str
    eta_low: int | None = None
    eta_high: int | None = None
    """Between these seconds since the epoch it starts, as things stand; None where nothing can be said."""


def create_job(session: Session, tenant: str, new: NewJob) -> Job:
    """Inserts the job, queued."""
    job = Job(
        id=new_id(JOB),
        tenant=tenant,
        model=new.model,
        training_file=new.training_file,
        validation_file=new.validation_file,
        suffix=new.suffix,
        name=new.name,
        base_checkpoint=new.base.checkpoint_id if new.base else None,
        base_job_id=new.base.job_id if new.base else None,
        base_step=new.base.step if new.base else None,
        seed=new.seed,
        user_metadata=new.metadata,
        method=new.method,
        num_steps=new.num_steps,
        state=JobState.QUEUED.value,
        last_seq=0,
    )
    session.add(job)
    origin = f"checkpoint {new.base.checkpoint_id}, step {new.base.step}," if new.base else new.model
    add_event(session, job, f"Created: {new.num_steps} steps on {origin}.".replace(",.", "."), kind="created")
    session.flush()
    session.refresh(job)
    return job


def get_job(session: Session, tenant: str, job_id: str, *, param: str | None = None) -> Job:
    """Raises NotFound when the tenant has no such job."""
    return _one(session.scalar(_own(tenant, job_id)), job_id, param)


def lock_job(session: Session, tenant: str, job_id: str) -> Job:
    """The job, its row locked until the transaction ends. Raises NotFound when the tenant has no such job."""
    return _one(session.scalar(_own(tenant, job_id).with_for_update(key_share=True)), job_id, None)


def list_jobs(
    session: Session, tenant: str, wanted: JobFilter, *, after: str | None, limit: int, order: Order
) -> Page[Job]:
    """The tenant's jobs by age."""
    query = select(Job).where(Job.tenant == tenant)
    if wanted.status is not None:
        query = query.where(Job.state.in_([state.value for state, word in STATUS.items() if word == wanted.status]))
    if wanted.model is not None:
        query = query.where(Job.model == wanted.model)
    if wanted.metadata:
        query = query.where(Job.user_metadata.contains(dict(wanted.metadata)))
    number = get_job(session, tenant, after, param="after").number if after else None
    return read_page(session, query, Job.number, Cursor(number, limit, order))


def change_job(session: Session, job: Job, changes: Mapping[str, Any]) -> None:
    """Sets the name, the metadata or the priority of a locked job, and says so in its sequence."""
    for name, value in changes.items():
        setattr(job, "user_metadata" if name == "metadata" else name, value)
    if changes:
        message = f"Changed: {', '.join(sorted(changes))}."
        add_event(session, job, message, kind="changed", data={"changed": sorted(changes)})


def find_jobs(session: Session, job_ids: Sequence[str]) -> Sequence[Job]:
    """The jobs with these ids, whoever owns them: for readers that were let in before."""
    return session.scalars(select(Job).where(Job.id.in_(job_ids))).all()


def request_cancel(session: Session, tenant: str, job_id: str) -> Job:
    """Cancels a job that no worker holds; tells the worker of one that is held. Asking twice changes nothing."""
    job = lock_job(session, tenant, job_id)
    state = JobState(job.state)
    if state in (JobState.CANCELLING, JobState.CANCELLED):
        return job
    target = find_target(state, "cancel")
    job.cancel_requested_at = session.scalars(select(func.now())).one()
    is_held = state in LEASED
    told = "Cancelling: the trainer saves a checkpoint and stops." if is_held else f"Cancelled {_moment(state)}."
    move(session, job, target, told)
    return job


def request_pause(session: Session, tenant: str, job_id: str) -> Job:
    """Pauses a job that no worker holds; tells the worker of one that is held. Asking twice changes nothing."""
    job = lock_job(session, tenant, job_id)
    state = JobState(job.state)
    if state in (JobState.PAUSING, JobState.PAUSED):
        return job
    target = find_target(state, "pause")
    is_held = state in LEASED
    told = "Pausing: the trainer saves a checkpoint and stops." if is_held else f"Paused {_moment(state)}."
    move(session, job, target, told)
    return job


def resume_job(session: Session, tenant: str, job_id: str) -> Job:
    """Queues a paused job again; it goes on from its newest checkpoint."""
    job = lock_job(session, tenant, job_id)
    if JobState(job.state) is JobState.QUEUED:
        return job
    move(session, job, find_target(JobState(job.state), "resume"), "Resumed: waiting for a worker.")
    job.not_before = session.scalars(select(func.now())).one()
    job.attempts_without_progress = 0
    job.stop_reason = None
    return job


def queue_places(session: Session, jobs: Sequence[Job], *, worker_silent_s: float) -> dict[str, QueuePlace]:
    """Where each of the claimable among `jobs` stands in the queue, by id."""
    waiting = [job for job in jobs if JobState(job.state) in CLAIMABLE]
    if not waiting:
        return {}
    ids = [job.id for job in waiting]
    found = {row.id: row for row in session.execute(_PLACES, {"ids": ids, "silent_s": worker_silent_s})}
    places = {}
    for job in waiting:
        row = found[job.id]
        if not row.num_slots:
            reason = "no worker is alive"
        elif job.not_before > row.now:
            reason = f"waiting {(job.not_before - row.now).total_seconds():.0f} s after a failed attempt"
        else:
            reason = "waiting for a free worker slot"
        position = row.place or 1
        soonest, latest = _guess_start(position, row.num_slots, row.left_s or [])
        begin = max(row.now, job.not_before).timestamp()
        places[job.id] = QueuePlace(
            position=position,
            reason=reason,
            eta_low=None if soonest is None else round(max(begin, row.now.timestamp() + soonest)),
            eta_high=None if latest is None else round(max(begin, row.now.timestamp() + latest)),
        )
    return places


def _guess_start(position: int, num_slots: int, left_s: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Seconds until the job at this place starts, at the soonest and at the latest.

    `left_s` says how long each running job still takes at its newest step's pace, None where it has told none. At the
    soonest whatever goes first is over at once, for how long that takes nobody knows; at the latest it keeps its slot.
    """
    if not num_slots:
        return None, None
    free = [0.0] * max(0, num_slots - len(left_s))
    soonest = min([*free, *(0.0 if left is None else left for left in left_s)])
    latest = sorted([*free, *(math.inf if left is None else left for left in left_s)])[:num_slots]
    return soonest, latest[position - 1] if position <= len(latest) and math.isfinite(latest[position - 1]) else None


# Written out, since every look at a waiting job asks it: to build it from its parts takes longer than to run it.
_PLACES = text(f"""
WITH queue AS (
    SELECT id, row_number() OVER (ORDER BY priority DESC, number) AS place FROM jobs
    WHERE state IN ({", ".join(f"'{state}'" for state in CLAIMABLE_STATES)})
)
SELECT asked.id, queue.place, beats.num_slots, held.left_s, now() AS now
FROM unnest(cast(:ids AS text[])) AS asked (id) LEFT JOIN queue ON queue.id = asked.id,
(SELECT cast(coalesce(sum(slots), 0) AS int) AS num_slots FROM worker_beats
 WHERE seen_at > now() - make_interval(secs => :silent_s)) AS beats,
(SELECT array_agg(CASE WHEN state = 'running' THEN (num_steps - step) * newest.step_s END) AS left_s
 FROM jobs LEFT JOIN LATERAL (
    SELECT cast(values ->> 'speed/step_s' AS float) AS step_s FROM step_metrics
    WHERE job_id = jobs.id AND kind = 'train' ORDER BY step_metrics.step DESC LIMIT 1
 ) AS newest ON true
 WHERE state IN ({", ".join(f"'{state}'" for state in LEASED_STATES)})) AS held""")  # noqa: S608  # of our own words


def _moment(state: JobState) -> str:
    return "between two attempts" if state is JobState.RECOVERING else "before a worker held it"


def _own(tenant: str, job_id: str) -> Any:
    return select(Job).where(Job.tenant == tenant, Job.id == job_id)


def _one(job: Job | None, job_id: str, param: str | None) -> Job:
    if job is None:
        raise NotFound(
            f"There is no job '{job_id}'; GET /v1/fine_tuning/jobs lists yours.", code="job_not_found", param=param
        )
    return job
