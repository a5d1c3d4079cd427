"""How an attempt ends, by what its trainer left with and what was asked of it: with the trainer of the chaos tests."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api.lifecycle import TERMINAL, JobState
from api.settings import Settings
from api.store import jobs, leases
from api.store.database import Database
from stapo_core.events import StageChanged
from stapo_core.failpoints import VARIABLE
from tests.chaos import trainer as chain
from tests.worker.conftest import AddJob, ReadJob
from tests.worker.test_runner import Work, told
from worker import process
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


def test_a_step_that_always_crashes_fails_the_job_although_checkpoints_came_before_it(
    work: Work, add_job: AddJob, failpoints: Path
) -> None:
    job_id = add_job(model="tiny", num_steps=1000, **TRAIN)

    def has_ended(job: Any) -> bool:
        if job.step >= 3:
            (failpoints / "updated").write_text("kill")
        return JobState(job.state) in TERMINAL

    job = work.wait_for(job_id, has_ended)
    assert (job.state, job.attempts_without_progress) == ("failed", 3)
    assert "was ended by signal 9" in job.error["message"]


def program(text: str, *, code: int) -> tuple[str, ...]:
    """A trainer that does what `text` says, and leaves."""
    return (sys.executable, "-c", f"import os, signal, sys, time\n{text}\nsys.exit({code})")


def ask_for(wish: str, database: Database, job_id: str) -> None:
    with database.transaction() as session:
        {"cancel": jobs.request_cancel, "pause": jobs.request_pause}[wish](session, "t", job_id)


@pytest.mark.parametrize(("wish", "end"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_was_asked_for_holds_when_the_worker_cannot_go_on(
    wish: str, end: str, add_job: AddJob, settings: Settings, database: Database, read_job: ReadJob
) -> None:
    runner = Runner(settings)
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    with database.transaction() as session:
        job = leases.claim_job(session, worker=runner.name, lease_s=60.0)
    assert job is not None
    settings.runs_dir.write_text("a file where a folder must be")
    ask_for(wish, database, job_id)
    runner.run_attempt(job)
    assert read_job(job_id).state == end
    runner.run_attempt(job)  # a ghost by now
    assert read_job(job_id).state == end


def test_a_run_directory_that_another_trainer_holds_costs_the_job_no_attempt(
    work: Work, add_job: AddJob, settings: Settings, database: Database
) -> None:
    work.runner.is_draining.set()
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    run_dir = settings.runs_dir / job_id
    run_dir.mkdir(parents=True)
    with (run_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work.runner.is_draining.clear()
        job = work.wait_for(job_id, lambda job: job.state == JobState.RECOVERING)
        assert job.attempts_without_progress == 0
        with database.transaction() as session:
            wait_s = session.scalar(text("SELECT extract(epoch FROM not_before - now()) FROM jobs"))
        assert settings.lease_s / 2 < float(wait_s) <= settings.lease_s
    assert any("held by another trainer" in message for message in told(database, job_id))
    assert work.wait_for_state(job_id, JobState.SUCCEEDED).state == "succeeded"


def test_a_trainer_that_stops_unasked_uses_up_the_attempts(
    work: Work, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TRAINER", program("", code=75))
    job = work.wait_for_state(add_job(model="tiny", num_steps=5, **TRAIN), JobState.FAILED)
    assert (job.state, job.fence) == ("failed", 3)
    assert "left with exit code 75" in job.error["message"]


def test_a_drain_that_ends_a_trainer_before_it_listens_costs_no_attempt(
    work: Work, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TRAINER", program("time.sleep(600)", code=1))
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    log = work.runner.settings.runs_dir / job_id / process.LOG_NAME
    work.wait_for(job_id, lambda job: log.exists())
    work.runner.is_draining.set()
    job = work.wait_for(job_id, lambda job: job.state in ("recovering", "failed"))
    assert (job.state, job.attempts_without_progress) == ("recovering", 0)


def test_a_trainer_that_never_stops_talking_is_cancelled_all_the_same(
    work: Work, add_job: AddJob, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = StageChanged(time=1.0, stage="sampling").model_dump_json()
    talk = f"said = 5 * ({line!r} + chr(10))\nspool = open('events.jsonl', 'a', 1)\n"
    talk += "while True:\n  spool.write(said)\n  time.sleep(0.001)"
    monkeypatch.setattr(process, "TRAINER", program(talk, code=0))
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    work.wait_for(job_id, lambda job: job.stage == "sampling")
    ask_for("cancel", database, job_id)
    work.wait_for(job_id, lambda job: job.state == JobState.CANCELLED, timeout_s=30.0)


def test_publishing_for_longer_than_a_lease_loses_no_job(
    settings: Settings, read_job: ReadJob, add_job: AddJob, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, left_s = os.link, []

    def link_slowly(source: Path, target: Path) -> None:
        time.sleep(0.6 * 3.0)
        link(source, target)
        with database.transaction() as session:
            left_s.append(float(session.scalar(text("SELECT extract(epoch FROM lease_until - now()) FROM jobs"))))

    monkeypatch.setattr(os, "link", link_slowly)
    work = Work(settings.model_copy(update={"lease_s": 3.0, "heartbeat_s": 0.1}), read_job)
    try:
        job_id = add_job(model="tiny", num_steps=3, **TRAIN)
        work.wait_for_state(job_id, JobState.SUCCEEDED)
    finally:
        work.stop()
    assert len(left_s) == 3  # two files and a manifest
    assert min(left_s) > 0.0
