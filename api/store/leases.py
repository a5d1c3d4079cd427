"""Jobs as workers see them: claim, renew, settle, and what becomes of a job whose worker went silent.

A claim raises the job's fence; every later write goes through `hold`, which names that fence and locks the row. A
writer whose fence is no longer the job's, or whose job is in no worker's hands any more, is a ghost and gets
`Fenced`. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.errors import Fenced
from api.lifecycle import JobState
from api.store.events import add_event, move
from api.store.tables import CLAIMABLE_STATES, LEASED_STATES, Job, WorkerBeat
from stapo_core.failpoints import failpoint

MAX_BACKOFF_S = 60.0
FORGOTTEN_S = 86_400.0


@dataclass(frozen=True)
class RetryRule:
    """How often a job that makes no progress is tried again, and how long it waits first."""

    max_attempts: int
    backoff_s: float


def claim_job(session: Session, *, worker: str, lease_s: float) -> Job | None:
    """Takes the best eligible job for `worker`, raising its fence; None when there is none."""
    times = func.now(), _interval_from_now(lease_s)
    found = session.execute(_claimable().add_columns(*times).limit(1).with_for_update(skip_locked=True)).one_or_none()
    if found is None:
        return None
    job: Job = found[0]
    now, lease_until = found[1:]
    job.fence += 1
    job.attempts_without_progress += 1
    job.worker = worker
    job.lease_until = lease_until
    job.started_at = job.started_at or now
    move(session, job, JobState.STARTING, f"Attempt {job.fence} starts on {worker}.", attempt=job.fence, worker=worker)
    return job


def is_job_waiting(session: Session) -> bool:
    """Whether a claim would find a job now."""
    return session.scalar(_claimable().with_only_columns(Job.id).limit(1)) is not None


def hold(session: Session, job_id: str, fence: int) -> Job:
    """Locks the job for a write under `fence`. Raises Fenced when another attempt has been let in."""
    job = session.scalar(select(Job).where(Job.id == job_id, Job.fence == fence).with_for_update(key_share=True))
    if job is None or job.state not in LEASED_STATES:
        raise Fenced(f"attempt {fence} no longer holds {job_id}")
    return job


def renew_lease(session: Session, job_id: str, fence: int, *, lease_s: float) -> JobState:
    """Prolongs the lease and tells what the tenant wants by now. Raises Fenced."""
    state = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.fence == fence, Job.state.in_(LEASED_STATES))
        .values(lease_until=_interval_from_now(lease_s))
        .returning(Job.state)
    )
    if state is None:
        raise Fenced(f"attempt {fence} no longer holds {job_id}")
    return JobState(state)


def prolong_lease(session: Session, job: Job, *, lease_s: float) -> None:
    """Prolongs the lease of a held job from this moment on: whoever ships a long backlog has no time to renew."""
    job.lease_until = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)  # not when it began


def read_wish(session: Session, job_id: str, fence: int) -> JobState:
    """The state that the tenant has put the job into. Raises Fenced."""
    state = session.scalar(select(Job.state).where(Job.id == job_id, Job.fence == fence))
    if state not in LEASED_STATES:
        raise Fenced(f"attempt {fence} no longer holds {job_id}")
    return JobState(state)


def settle_as_asked(session: Session, job: Job, why: str) -> bool:
    """Ends a held job as its tenant has asked by now, whatever else went on; False when nothing was asked."""
    ends = {JobState.CANCELLING: JobState.CANCELLED, JobState.PAUSING: JobState.PAUSED}
    end = ends.get(JobState(job.state))
    if end is not None:
        move(session, job, end, f"{end.capitalize()} after step {job.step}: {why}.")
    return end is not None


def release_job(session: Session, job: Job, message: str, *, wait_s: float = 0.0) -> None:
    """Gives a held job back with its checkpoint, through no fault of its own: the attempt does not count."""
    job.attempts_without_progress = max(0, job.attempts_without_progress - 1)
    _recover(session, job, message, wait_s=wait_s)


def pause_job(session: Session, job: Job, reason: str, message: str) -> None:
    """Sets a held job aside until somebody acts and resumes it: `reason` is the job's `stop_reason` until then."""
    job.attempts_without_progress = max(0, job.attempts_without_progress - 1)
    job.stop_reason = reason
    text = f"Paused ({reason}) after step {job.step}: {message}"
    move(session, job, JobState.PAUSED, text, level="warn", reason=reason)


def fail_attempt(session: Session, job: Job, error: dict[str, Any], rule: RetryRule) -> None:
    """Ends an attempt that went wrong: the job is tried again later, or fails when it has made no progress."""
    tries = job.attempts_without_progress
    if not error["retryable"] or tries >= rule.max_attempts:
        job.error = error
        move(session, job, JobState.FAILED, f"Failed: {error['message']}", level="error", error=error)
        return
    wait_s = min(rule.backoff_s * 2 ** (tries - 1), MAX_BACKOFF_S)
    message = f"Attempt {job.fence} failed ({error['message']}); trying again in {wait_s:.0f} s."
    _recover(session, job, message, wait_s=wait_s, level="warn", error=error)


def expire_leases(
    session: Session, rule: RetryRule, *, lease_s: float, spared: Collection[tuple[str, int]] = ()
) -> list[str]:
    """Takes every job from a worker that has been silent past its lease; returns their ids.

    Attempts (id, fence) that are `spared` are the caller's own, and at work. None is taken in the first `lease_s`
    seconds of a database that was restarted: until then nobody could renew.
    """
    up_s = func.extract("epoch", func.now() - func.pg_postmaster_start_time())
    lapsed = select(Job).where(Job.state.in_(LEASED_STATES), Job.lease_until < func.now(), up_s > lease_s)
    lapsed = lapsed.where(tuple_(Job.id, Job.fence).not_in(list(spared)))
    jobs = session.scalars(lapsed.with_for_update(skip_locked=True)).all()
    for job in jobs:
        failpoint("reaping")
        add_event(session, job, f"Worker {job.worker} went silent.", kind="worker_lost", level="warn")
        if not settle_as_asked(session, job, "its worker's lease ran out, and nothing that it does counts any more"):
            fail_attempt(session, job, lost_worker_error(job), rule)
    return [job.id for job in jobs]


def lost_worker_error(job: Job) -> dict[str, Any]:
    """The error of a job whose worker went silent."""
    message = f"worker {job.worker} went silent while {job.stage or 'starting'}"
    return {"code": "worker_lost", "message": message, "param": None, "stage": job.stage, "retryable": True}


def beat(session: Session, worker: str, *, slots: int) -> None:
    """Records that a worker is alive; who has been silent for a day is forgotten."""
    session.execute(delete(WorkerBeat).where(WorkerBeat.seen_at < _interval_from_now(-FORGOTTEN_S)))
    row = insert(WorkerBeat).values(name=worker, slots=slots, seen_at=func.now())
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"slots": slots, "seen_at": func.now()}))


def is_worker_alive(session: Session, *, silent_s: float, prefix: str = "") -> bool:
    """Whether a worker whose name begins with `prefix` gave a sign of life in the last `silent_s` seconds."""
    named = WorkerBeat.name.startswith(prefix, autoescape=True)
    seen = select(WorkerBeat.name).where(named, WorkerBeat.seen_at > _interval_from_now(-silent_s)).limit(1)
    return session.scalar(seen) is not None


def _claimable() -> Select[Job]:
    # Written out in the statement, so that the index of those that wait serves it.
    waiting: BindParameter[Any] = bindparam("waiting", CLAIMABLE_STATES, expanding=True, literal_execute=True)
    return (
        select(Job)
        .where(Job.state.in_(waiting), or_(Job.not_before.is_(None), Job.not_before <= func.now()))
        .order_by(Job.priority.desc(), Job.number)
    )


def _recover(session: Session, job: Job, message: str, *, wait_s: float, **event: Any) -> None:
    job.not_before = _in_seconds(session, wait_s)
    move(session, job, JobState.RECOVERING, message, **event)


def _interval_from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _in_seconds(session: Session, seconds: float) -> Any:
    return session.scalars(select(_interval_from_now(seconds))).one()
