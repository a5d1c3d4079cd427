"""Faults of one attempt, at named places: what becomes of the job, and what its events tell of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from api.errors import Fenced
from api.lifecycle import JobState
from api.settings import Settings
from api.store import artifacts, jobs, leases
from api.store import migrate as migrations
from api.store.database import Database
from api.store.events import list_events
from api.store.tables import JobEvent
from stapo_core.config import RunConfig
from stapo_core.events import StageChanged
from stapo_core.failpoints import VARIABLE
from stapo_core.folders import verify
from stapo_core.spool import Spool
from tests.chaos import trainer as chain
from tests.worker.conftest import AddJob, ReadJob
from tests.worker.test_runner import Work, is_alive, steps_of
from worker import process
from worker.process import start_trainer
from worker.reaper import Housekeeper
from worker.recorder import Attempt, Recorder
from worker.runner import Runner

TRAIN: dict[str, Any] = {"batch": {"num_prompts": 2, "group_size": 2}, "checkpoint": {"every_steps": 3, "keep": 2}}


@pytest.fixture(autouse=True)
def chain_trainer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done by the trainer whose steps follow from each other: it starts in a moment."""
    monkeypatch.setattr(process, "TRAINER", (sys.executable, chain.__file__))
    (settings.models_dir / "tiny").mkdir(parents=True)
    settings.files_dir.mkdir()
    (settings.files_dir / "file-1").write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)


@pytest.fixture
def failpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def work(settings: Settings, read_job: ReadJob, failpoints: Path) -> Iterator[Work]:
    work = Work(settings, read_job)
    yield work
    work.stop()


def events_of(database: Database, job_id: str) -> list[JobEvent]:
    with database.transaction() as session:
        job = jobs.get_job(session, "t", job_id)
        return list(list_events(session, job, after=None, limit=100, order="asc").rows)


def revision(database: Database) -> str:
    with database.transaction() as session:
        return str(session.scalar(text("SELECT version_num FROM alembic_version")))


def resume(database: Database, job_id: str) -> None:
    with database.transaction() as session:
        jobs.resume_job(session, "t", job_id)


@pytest.mark.parametrize("place", ["checkpoint_drafted", "updated", "publishing", "flushing", "spawning"])
def test_a_full_disk_pauses_the_job_with_its_last_checkpoint_and_one_call_resumes_it(
    place: str, work: Work, add_job: AddJob, failpoints: Path, database: Database, settings: Settings
) -> None:
    job_id = add_job(model="tiny", num_steps=20, **TRAIN)
    if place != "spawning":
        work.wait_for_step(job_id, 7)
    (failpoints / place).write_text("raise ENOSPC")
    paused = work.wait_for_state(job_id, JobState.PAUSED)
    assert (paused.state, paused.stop_reason, paused.lease_until) == ("paused", "storage_full", None)
    told = events_of(database, job_id)[-1]
    assert (told.level, told.data["reason"]) == ("warn", "storage_full")
    assert "make room, then resume" in told.message
    with database.transaction() as session:
        for row in artifacts.all_checkpoints(session, paused):
            assert verify(artifacts.folder_path(settings.artifacts_dir, job_id, row.step)).step == row.step
    resume(database, job_id)
    job = work.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.stop_reason) == ("succeeded", "num_steps_reached")
    assert steps_of(database, job_id) == list(range(1, 21))


def test_work_that_is_lost_is_told_as_lost(work: Work, add_job: AddJob, failpoints: Path, database: Database) -> None:
    (failpoints / "checkpoint_drafted").write_text("kill @3")  # steps 7 to 9 are done and not safe
    job_id = add_job(model="tiny", num_steps=12, **TRAIN)
    assert work.wait_for_state(job_id, JobState.SUCCEEDED).fence == 2
    again = [event for event in events_of(database, job_id) if event.data.get("resume_step") == 6]
    assert [(event.data["lost_steps"], event.data["lost_s"]) for event in again] == [
        (3, pytest.approx(3 * chain.STEP_S))
    ]
    assert "3 step(s) behind the last checkpoint" in again[0].message


def test_a_trainer_that_is_alive_and_silent_is_killed_and_tried_again(
    settings: Settings, read_job: ReadJob, add_job: AddJob, failpoints: Path, database: Database
) -> None:
    work = Work(settings.model_copy(update={"stall_s": 1.5}), read_job)
    try:
        (failpoints / "sampling").write_text("stop @5")
        job_id = add_job(model="tiny", num_steps=12, **TRAIN)
        assert work.wait_for_state(job_id, JobState.SUCCEEDED).fence == 2
    finally:
        work.stop()
    errors = [event.data["error"] for event in events_of(database, job_id) if "error" in event.data]
    assert [error["code"] for error in errors] == ["trainer_stalled"]


def test_a_worker_that_comes_late_does_not_end_the_trainer_of_its_heir(settings: Settings, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "model": tmp_path,
            "training_file": settings.files_dir / "file-1",
            "grader": {"type": "numeric", "reference": "{{item.answer}}"},
            "train": TRAIN | {"num_steps": 1_000_000},
        }
    )
    run_dir = settings.runs_dir / "job"
    heir = start_trainer(run_dir, config, fence=2)
    try:
        with pytest.raises(Fenced, match="attempt 2 has been in"):
            start_trainer(run_dir, config, fence=1)
        assert is_alive(heir.process.pid)
    finally:
        heir.close()


def test_a_cancel_shortens_the_grace_of_a_drain(settings: Settings, tmp_path: Path) -> None:
    run_dir = settings.runs_dir / "job"
    config = RunConfig.model_validate(
        {
            "model": tmp_path,
            "training_file": settings.files_dir / "file-1",
            "grader": {"type": "numeric", "reference": "{{item.answer}}"},
            "seed": chain.DEAF_SEED,
            "train": TRAIN | {"num_steps": 1_000_000},
        }
    )
    deaf = start_trainer(run_dir, config, fence=1)
    try:
        while not (run_dir / "events.jsonl").exists() or b'"step"' not in (run_dir / "events.jsonl").read_bytes():
            time.sleep(0.02)
        deaf.stop(grace_s=1000.0)
        deaf.stop(grace_s=0.2)
        assert is_alive(deaf.process.pid)
        time.sleep(0.3)
        deaf.stop(grace_s=1000.0)
        assert deaf.exit_code() == -9
    finally:
        deaf.close()


def test_housekeeping_outlives_a_fault_of_its_own(
    settings: Settings, add_job: AddJob, read_job: ReadJob, failpoints: Path, database: Database
) -> None:
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    with database.transaction() as session:
        leases.claim_job(session, worker="gone", lease_s=-1.0)
    runner = Runner(settings.model_copy(update={"heartbeat_s": 0.2, "lease_s": 0.5}))
    (failpoints / "reaping").write_text("raise EIO")
    keeper = Housekeeper(runner, runner.settings)
    keeper.start()
    try:
        deadline = time.monotonic() + 60.0
        while read_job(job_id).state != JobState.SUCCEEDED and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        runner.is_draining.set()
        keeper.stop()
    assert not (failpoints / "reaping").exists()
    assert [event.kind for event in events_of(database, job_id)].count("worker_lost") == 1
    assert read_job(job_id).state == JobState.SUCCEEDED


def test_nobody_loses_a_job_by_a_question_over_which_the_database_stood_still(
    settings: Settings, add_job: AddJob, read_job: ReadJob, database: Database
) -> None:
    settings = settings.model_copy(update={"lease_s": 1.0, "heartbeat_s": 0.001})
    job_id = add_job(model="tiny")
    with database.transaction() as session:
        leases.claim_job(session, worker="w", lease_s=0.0)
    keeper = Housekeeper(Runner(settings), settings)
    time.sleep(settings.lease_s)  # it has come up long ago
    try:
        with database.transaction() as session:
            session.execute(text("LOCK TABLE jobs"))
            keeper.start()
            time.sleep(1.0)
        time.sleep(0.3)
        assert (read_job(job_id).state, read_job(job_id).fence) == (JobState.STARTING, 1)
        deadline = time.monotonic() + 60.0
        while read_job(job_id).fence == 1:  # a lease later, when it has had time to speak up
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        keeper.stop()


def test_a_worker_that_is_up_and_deaf_is_seen_as_silent(settings: Settings, database: Database) -> None:
    keeper = Housekeeper(Runner(settings), settings)
    keeper.start()
    time.sleep(0.5)
    keeper.stop()  # the process is there and hears nothing any more
    time.sleep(1.0)
    with database.transaction() as session:
        assert leases.is_worker_alive(session, silent_s=60.0)
        assert not leases.is_worker_alive(session, silent_s=0.9)


def test_a_job_in_the_middle_of_its_steps_survives_the_schema_of_the_last_release(
    settings: Settings, read_job: ReadJob, add_job: AddJob, database: Database, failpoints: Path
) -> None:
    """The state folder stays as it is; the database goes back one migration, and is brought up to date again."""
    before = Work(settings, read_job)
    job_id = add_job(model="tiny", num_steps=20, **TRAIN)
    before.wait_for_step(job_id, 5)
    before.stop()
    done = read_job(job_id).step
    newest = revision(database)
    with database.connection() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    assert int(revision(database)) == int(newest) - 1
    migrations.migrate(database)
    assert revision(database) == newest
    after = Work(settings, read_job)
    try:
        job = after.wait_for_state(job_id, JobState.SUCCEEDED)
    finally:
        after.stop()
    assert (job.state, job.fence) == ("succeeded", 2)
    assert any(event.data.get("resume_step") == done for event in events_of(database, job_id))
    assert steps_of(database, job_id) == list(range(1, 21))


def test_a_backlog_that_takes_longer_than_a_lease_to_ship_costs_no_attempt(
    settings: Settings, add_job: AddJob, database: Database, read_job: ReadJob
) -> None:
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    run_dir = settings.runs_dir / job_id
    run_dir.mkdir(parents=True)
    with database.transaction() as session:
        assert leases.claim_job(session, worker="w", lease_s=0.1) is not None
    spool = Spool(run_dir / "events.jsonl")
    spool.emit(StageChanged, stage="loading")
    Recorder(database, Attempt(job_id, 1, run_dir, settings.artifacts_dir, 2, lease_s=100.0)).ship()
    with database.transaction() as session:
        left_s = session.scalar(text("SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM jobs"))
    assert 90.0 < float(left_s) <= 100.0
