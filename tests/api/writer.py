"""Writes a job's steps, as a worker would."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from api.lifecycle import JobState
from api.store import leases, metrics
from api.store.database import Database
from api.store.events import move


class Writer:
    """Writes a claimed job's steps, as a worker would."""

    def __init__(self, database: Database, job_id: str) -> None:
        self.database = database
        self.job_id = job_id
        with database.transaction() as session:
            job = leases.claim_job(session, worker="w", lease_s=60.0)
            assert job is not None
            self.fence = job.fence
            move(session, job, JobState.RUNNING, "Training begins.")

    def step(self, step: int, **values: float) -> None:
        with self.database.transaction() as session:
            job = leases.hold(session, self.job_id, self.fence)
            metrics.add_metrics(session, job, "train", step, {"policy/entropy": 1.0, **values}, datetime.now(UTC))
            job.step = step

    def steps(self, count: int, values_of: Callable[[int], dict[str, float | None]], *, first: int = 1) -> None:
        with self.database.transaction() as session:
            job = leases.hold(session, self.job_id, self.fence)
            for step in range(first, count + 1):
                metrics.add_metrics(session, job, "train", step, values_of(step), datetime.now(UTC))
            job.step = count

    def finish(self) -> None:
        with self.database.transaction() as session:
            job = leases.hold(session, self.job_id, self.fence)
            move(session, job, JobState.EXPORTING, "Exporting.")
            move(session, job, JobState.SUCCEEDED, "Done.")
