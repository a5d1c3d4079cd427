"""Gathers what a job's wire form takes from other rows: newest metrics, place in the queue, the final checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
    """Changes whenever what is told of the job does; a guess of the end is no change."""
    told = job.model_dump_json(exclude={"estimated_finish"})
    return f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'
