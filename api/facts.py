"""Gathers what a job's wire form takes from other rows: newest metrics, place in the queue, the final checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from api.lifecycle import TERMINAL, JobState
from api.schemas import JobFacts, JobObject, job_object
from api.settings import Settings
from api.store import artifacts, jobs, metrics
from api.store.database import Session
from api.store.tables import Job


def portray_jobs(session: Session, rows: Sequence[Job], settings: Settings) -> list[JobObject]:
    """The wire forms of some jobs, in order."""
    ids = [row.id for row in rows]
    latest = metrics.latest_values(session, ids)
    places = jobs.queue_places(session, rows, worker_silent_s=settings.lease_s)
    finals = artifacts.final_checkpoint_ids(session, ids)
    return [
        job_object(
            row,
            JobFacts(
                latest=latest.get((row.id, "train"), {}),
                latest_evaluation=latest.get((row.id, "evaluation"), {}),
                place=places.get(row.id),
                final_checkpoint_id=finals.get(row.id),
            ),
        )
        for row in rows
    ]


def portray_job(session: Session, row: Job, settings: Settings) -> JobObject:
    """The wire form of one job."""
    return portray_jobs(session, [row], settings)[0]


def etag_of(job: JobObject) -> str:
    """`"<what callers may change>-<all that is told>"`; a guess of when something will be is no change.

    The first part is of the job's labels and of whether it lives, is paused or has ended: of nothing that a worker
    changes while it goes on.
    """
    changed = [job.name, sorted(job.metadata.items()), job.priority, _STANDING.get(job.state, "live")]
    told = job.model_dump_json(exclude={"estimated_finish": True, "queue": {"eta_low", "eta_high"}})
    return f'"{_digest(json.dumps(changed))}-{_digest(told)}"'


_STANDING = {
    JobState.PAUSING: JobState.PAUSED,
    JobState.CANCELLING: JobState.CANCELLED,
    **{state: state for state in (JobState.PAUSED, *TERMINAL)},
}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
