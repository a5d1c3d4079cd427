"""When a job is taken from a worker that fell silent, and when not yet."""

from __future__ import annotations

import time

from api.lifecycle import JobState
from api.settings import Settings
from api.store import leases
from api.store.database import Database
from api.store.tables import Job
from tests.worker.conftest import AddJob, ReadJob
from worker.reaper import Housekeeper
from worker.runner import Runner


def claim_lapsed(database: Database) -> Job:
    with database.transaction() as session:
        job = leases.claim_job(session, worker="w", lease_s=-1.0)
    assert job is not None
    return job


def test_a_worker_that_has_just_come_up_gives_the_others_one_lease(
    settings: Settings, database: Database, add_job: AddJob, read_job: ReadJob
) -> None:
    job_id = add_job()
    claim_lapsed(database)
    settings = settings.model_copy(update={"lease_s": 3.0, "heartbeat_s": 0.1})
    runner = Runner(settings)
    runner.is_draining.set()
    keeper = Housekeeper(runner, settings)
    began = time.monotonic()
    keeper.start()
    try:
        while read_job(job_id).state == JobState.STARTING and time.monotonic() < began + 60.0:
            time.sleep(0.05)
        assert read_job(job_id).state == JobState.RECOVERING
        assert time.monotonic() - began >= 2.9
    finally:
        keeper.stop()


def test_a_worker_takes_no_job_from_itself(
    settings: Settings, database: Database, add_job: AddJob, read_job: ReadJob
) -> None:
    job_id = add_job()
    job = claim_lapsed(database)
    settings = settings.model_copy(update={"lease_s": 0.5, "heartbeat_s": 0.1})
    runner = Runner(settings)
    runner.is_draining.set()
    runner.held.add((job.id, job.fence))
    keeper = Housekeeper(runner, settings)
    keeper.start()
    try:
        time.sleep(2.0)
        assert read_job(job_id).state == JobState.STARTING
        runner.held.clear()
        deadline = time.monotonic() + 60.0
        while read_job(job_id).state == JobState.STARTING and time.monotonic() < deadline:
            time.sleep(0.05)
        assert read_job(job_id).state == JobState.RECOVERING
    finally:
        keeper.stop()
