"""A job's one sequence of events and metrics, and the one function that moves its state.

Every function here wants the job's row locked by the caller (`lock_job`, or a worker's `hold`): that lock is what
keeps the sequence free of gaps.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.errors import NotFound
from api.lifecycle import LEASED, TERMINAL, JobState, check_move
from api.store.ids import EVENT, new_id
from api.store.pages import Cursor, Order, Page, read_page
from api.store.tables import Job, JobEvent

Level = Literal["info", "warn", "error"]


def next_seq(job: Job) -> int:
    """The next number of the job's sequence."""
    job.last_seq += 1
    return job.last_seq


def add_event(
    session: Session, job: Job, message: str, *, kind: str, level: Level = "info", data: dict[str, Any] | None = None
) -> None:
    """Appends a message for the user to the job's sequence."""
    session.add(
        JobEvent(
            job_id=job.id, seq=next_seq(job), id=new_id(EVENT), level=level, kind=kind, message=message, data=data or {}
        )
    )


def move(session: Session, job: Job, target: JobState, message: str, *, level: Level = "info", **data: Any) -> None:
    """Moves the job to `target` and says so in its sequence; a lease ends with the states that hold one.

    Raises Conflict when the table of moves forbids it.
    """
    check_move(JobState(job.state), target)
    if target in TERMINAL:
        job.finished_at = session.scalars(select(func.now())).one()
        job.stage = None
    if target not in LEASED:
        job.lease_until = None
    origin, job.state = job.state, target.value
    add_event(session, job, message, kind="state", level=level, data={"from": origin, "to": target.value, **data})


def list_events(session: Session, job: Job, *, after: str | None, limit: int, order: Order) -> Page[JobEvent]:
    """The job's messages in the order of its sequence."""
    cursor = Cursor(_seq_of(session, job, after) if after else None, limit, order)
    return read_page(session, select(JobEvent).where(JobEvent.job_id == job.id), JobEvent.seq, cursor)


def newest_start(session: Session, job: Job) -> dict[str, Any]:
    """What the newest trainer said of itself when it began: device, versions, sizes. Empty before the first."""
    query = select(JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.data.has_key("versions"))
    return session.scalar(query.order_by(JobEvent.seq.desc()).limit(1)) or {}


def _seq_of(session: Session, job: Job, event_id: str) -> int:
    seq = session.scalar(select(JobEvent.seq).where(JobEvent.job_id == job.id, JobEvent.id == event_id))
    if seq is None:
        raise NotFound(f"The job has no event '{event_id}'.", code="event_not_found", param="after")
    return seq
