"""Jobs run by a real trainer process: to the end, through crashes, and into every stop that a tenant may ask for."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api.lifecycle import TERMINAL, JobState
from api.settings import Settings
from api.store import artifacts, jobs, metrics
from api.store.database import Database
from api.store.events import list_events
from api.store.jobs import Base
from api.store.metrics import MetricsFilter
from stapo_core.config import RunConfig
from tests.stapo_core.tiny import make_model, make_tokenizer
from tests.worker.conftest import AddJob, ReadJob
from worker.process import start_trainer
from worker.runner import Runner

TRAIN: dict[str, Any] = {
    "batch": {"num_prompts": 2, "group_size": 2},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 4},
    "checkpoint": {"every_steps": 3, "keep": 2},
    "record_rollouts_every": 0,
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def inputs(settings: Settings, model: Path) -> None:
    settings.models_dir.mkdir(parents=True)
    (settings.models_dir / "tiny").symlink_to(model)
    settings.files_dir.mkdir()
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(8)]
    (settings.files_dir / "file-1").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Work:
    """A runner that keeps looking for work in a thread, as a worker process does."""

    def __init__(self, settings: Settings, read_job: ReadJob) -> None:
        self.runner = Runner(settings)
        self.read_job = read_job
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.runner.run_waiting_jobs()
            self._stopping.wait(0.05)

    def wait_for(self, job_id: str, is_so: Callable[[Any], bool], *, timeout_s: float = 90.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job = self.read_job(job_id)
            if is_so(job):
                return job
            time.sleep(0.02)
        raise AssertionError(f"still {job.state} at step {job.step}, stage {job.stage}")

    def wait_for_step(self, job_id: str, step: int) -> int:
        """Waits for the step; returns the trainer's process id."""
        self.wait_for(job_id, lambda job: job.step >= step)
        return int((self.runner.settings.runs_dir / job_id / "lock").read_text())

    def wait_for_state(self, job_id: str, state: JobState) -> Any:
        return self.wait_for(job_id, lambda job: job.state == state or JobState(job.state) in TERMINAL - {state})

    def stop(self) -> None:
        self._stopping.set()
        self.runner.is_draining.set()
        self._thread.join()


@pytest.fixture
def work(settings: Settings, read_job: ReadJob) -> Iterator[Work]:
    work = Work(settings, read_job)
    yield work
    work.stop()


@pytest.fixture
def add_endless_job(add_job: AddJob) -> Callable[[], str]:
    return lambda: add_job(model="tiny", num_steps=1_000_000, **TRAIN)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def steps_of(database: Database, job_id: str) -> list[int]:
    with database.transaction() as session:
        job = jobs.get_job(session, "t", job_id)
        rows = metrics.read_points(session, job, MetricsFilter(kind="train"), max_points=None).data
        return sorted(row.step for row in rows)


def told(database: Database, job_id: str) -> list[str]:
    with database.transaction() as session:
        job = jobs.get_job(session, "t", job_id)
        return [event.message for event in list_events(session, job, after=None, limit=100, order="asc").rows]


def test_a_job_runs_to_its_end(work: Work, add_job: AddJob, database: Database, settings: Settings) -> None:
    job_id = add_job(model="tiny", num_steps=7, **TRAIN)
    job = work.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.step, job.stop_reason) == ("succeeded", 7, "num_steps_reached")
    assert steps_of(database, job_id) == list(range(1, 8))
    assert job.trained_tokens > 0
    with database.transaction() as session:
        saved = artifacts.list_checkpoints(session, job, after=None, limit=9, order="asc").rows
    assert [(row.step, row.final) for row in saved] == [(6, False), (7, True)]
    folder = artifacts.folder_path(settings.artifacts_dir, job_id, 7)
    assert {file["path"] for file in saved[-1].files} <= {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


def test_a_killed_trainer_costs_no_step(work: Work, add_job: AddJob, database: Database) -> None:
    job_id = add_job(model="tiny", num_steps=40, **TRAIN)
    os.kill(work.wait_for_step(job_id, 5), signal.SIGKILL)
    job = work.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.fence) == ("succeeded", 2)
    assert steps_of(database, job_id) == list(range(1, 41))
    assert any("was ended by signal 9" in message for message in told(database, job_id))


def test_cancelled_means_that_the_process_is_gone_and_the_checkpoint_stays(
    work: Work, add_endless_job: Callable[[], str], database: Database
) -> None:
    job_id = add_endless_job()
    pid = work.wait_for_step(job_id, 4)
    with database.transaction() as session:
        assert jobs.request_cancel(session, "t", job_id).state == "cancelling"
    job = work.wait_for_state(job_id, JobState.CANCELLED)
    assert not is_alive(pid)
    with database.transaction() as session:
        saved = artifacts.list_checkpoints(session, job, after=None, limit=1, order="desc").rows
    assert saved[0].step == job.step


def test_a_trainer_that_ignores_sigterm_is_killed_after_the_grace(
    settings: Settings, read_job: ReadJob, add_endless_job: Callable[[], str], database: Database
) -> None:
    work = Work(settings.model_copy(update={"cancel_grace_s": 1.0}), read_job)
    try:
        job_id = add_endless_job()
        pid = work.wait_for_step(job_id, 1)
        os.kill(pid, signal.SIGSTOP)
        with database.transaction() as session:
            jobs.request_cancel(session, "t", job_id)
        asked = time.monotonic()
        assert work.wait_for_state(job_id, JobState.CANCELLED).state == "cancelled"
        assert time.monotonic() - asked >= 1.0
        assert not is_alive(pid)
    finally:
        work.stop()


def test_a_paused_job_goes_on_from_where_it_stood(work: Work, add_job: AddJob, database: Database) -> None:
    job_id = add_job(model="tiny", num_steps=60, **TRAIN)
    pid = work.wait_for_step(job_id, 2)
    with database.transaction() as session:
        assert jobs.request_pause(session, "t", job_id).state == "pausing"
    paused = work.wait_for_state(job_id, JobState.PAUSED)
    assert not is_alive(pid)
    with database.transaction() as session:
        jobs.resume_job(session, "t", job_id)
    assert work.wait_for_state(job_id, JobState.SUCCEEDED).state == "succeeded"
    assert steps_of(database, job_id) == list(range(1, 61))
    assert any(f"resumes after step {paused.step}" in message for message in told(database, job_id))


def test_data_that_cannot_be_used_fails_the_job_once_and_says_why(
    work: Work, add_job: AddJob, settings: Settings, database: Database
) -> None:
    (settings.files_dir / "file-1").write_text(
        '{"prompt": "far too long a prompt for this model", "answer": "1"}\n' * 2
    )
    job_id = add_job(model="tiny", num_steps=3, **TRAIN)
    job = work.wait_for_state(job_id, JobState.FAILED)
    assert (job.state, job.fence) == ("failed", 1)
    assert (job.error["param"], job.error["stage"], job.error["retryable"]) == ("training_file", "loading", False)
    assert "line 1" in job.error["message"]


def test_a_crash_that_repeats_fails_the_job_with_its_stage_and_the_logs_end(
    work: Work, add_job: AddJob, settings: Settings
) -> None:
    job_id = add_job(model="tiny", num_steps=3, **TRAIN)
    (settings.runs_dir / job_id).mkdir(parents=True)
    (settings.runs_dir / job_id / "checkpoints").write_text("a file where a folder must be")
    job = work.wait_for_state(job_id, JobState.FAILED)
    assert (job.state, job.fence) == ("failed", 3)
    assert job.error["stage"] in ("loading", "saving")
    assert any("Error" in line for line in job.error["evidence"])


def test_a_run_directory_that_cannot_be_made_costs_attempts_and_then_the_job(
    work: Work, add_job: AddJob, settings: Settings
) -> None:
    settings.runs_dir.write_text("a file where a folder must be")
    job = work.wait_for_state(add_job(model="tiny", num_steps=3, **TRAIN), JobState.FAILED)
    assert (job.state, job.fence, job.error["code"]) == ("failed", 3, "worker_error")
    assert "FileExistsError" in job.error["message"] or "NotADirectoryError" in job.error["message"]


def test_a_worker_that_lost_its_job_kills_the_trainer_and_writes_nothing(
    work: Work, add_endless_job: Callable[[], str], database: Database
) -> None:
    job_id = add_endless_job()
    pid = work.wait_for_step(job_id, 2)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET fence = fence + 1, worker = 'heir'"))
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)
    before = work.read_job(job_id).last_seq
    time.sleep(0.5)
    assert (work.read_job(job_id).last_seq, work.read_job(job_id).worker) == (before, "heir")


def test_a_draining_worker_saves_and_hands_the_job_back(
    work: Work, add_endless_job: Callable[[], str], database: Database
) -> None:
    job_id = add_endless_job()
    pid = work.wait_for_step(job_id, 2)
    work.runner.is_draining.set()
    job = work.wait_for_state(job_id, JobState.RECOVERING)
    assert (job.state, job.attempts_without_progress) == ("recovering", 0)
    assert not is_alive(pid)
    with database.transaction() as session:
        saved = artifacts.list_checkpoints(session, job, after=None, limit=1, order="desc").rows
    assert saved[0].step == job.step


def test_a_trainer_that_an_earlier_attempt_left_is_ended_first(
    work: Work, add_job: AddJob, settings: Settings, model: Path
) -> None:
    work.runner.is_draining.set()
    job_id = add_job(model="tiny", num_steps=5, **TRAIN)
    run_dir = settings.runs_dir / job_id
    config = RunConfig.model_validate(
        {
            "model": model,
            "training_file": settings.files_dir / "file-1",
            "grader": {"type": "numeric", "reference": "{{item.answer}}"},
            "train": TRAIN | {"num_steps": 1_000_000},
        }
    )
    left = start_trainer(run_dir, config, fence=0)
    while not (run_dir / "lock").exists() or not (run_dir / "lock").read_text():
        time.sleep(0.05)
    work.runner.is_draining.clear()
    assert work.wait_for_state(job_id, JobState.SUCCEEDED).state == "succeeded"
    assert left.exit_code() == -signal.SIGKILL
    left.close()


def test_a_trainer_sees_none_of_the_services_secrets(
    work: Work, add_endless_job: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAPO_DATABASE_URL", "postgresql://canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    pid = work.wait_for_step(add_endless_job(), 1)
    environment = Path(f"/proc/{pid}/environ").read_text()
    assert "canary" not in environment
    assert "STAPO_" not in environment


def test_a_database_that_is_away_stops_no_training(
    work: Work, add_endless_job: Callable[[], str], settings: Settings, database: Database
) -> None:
    job_id = add_endless_job()
    pid = work.wait_for_step(job_id, 2)
    name = settings.database_url.partition("@/")[2].partition("?")[0]
    admin = Database(settings.database_url.replace(f"@/{name}", "@/postgres"))
    spool = settings.runs_dir / job_id / "events.jsonl"
    with admin.transaction() as session:
        session.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        backends = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        session.execute(backends, {"name": name})
    size = spool.stat().st_size
    time.sleep(3.0)
    assert is_alive(pid)
    assert spool.stat().st_size > size
    with admin.transaction() as session:
        session.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    admin.close()
    seen = work.read_job(job_id).step
    job = work.wait_for(job_id, lambda job: job.step > seen + 2)
    assert (job.state, job.fence) == ("running", 1)
    steps = steps_of(database, job_id)
    assert steps == list(range(1, len(steps) + 1))


def test_a_job_begins_at_the_checkpoint_of_another(
    work: Work, add_job: AddJob, database: Database, settings: Settings
) -> None:
    parent = work.wait_for_state(add_job(model="tiny", num_steps=2, **TRAIN), JobState.SUCCEEDED)
    with database.transaction() as session:
        step = artifacts.list_checkpoints(session, parent, after=None, limit=1, order="desc").rows[0].step
    job_id = add_job(model="gone", num_steps=1, base=Base("ftckpt-0", parent.id, step), **TRAIN)
    assert work.wait_for_state(job_id, JobState.SUCCEEDED).state == JobState.SUCCEEDED
    config = RunConfig.model_validate_json((settings.runs_dir / job_id / "config.json").read_bytes())
    assert config.model == artifacts.folder_path(settings.artifacts_dir, parent.id, 2)


def test_two_jobs_of_one_worker_train_on_two_gpus(
    settings: Settings, read_job: ReadJob, add_endless_job: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    work = Work(settings.model_copy(update={"worker_slots": 2}), read_job)
    beside = threading.Thread(target=work.runner.run_waiting_jobs)
    job_ids = [add_endless_job(), add_endless_job()]
    beside.start()
    try:
        trainers = [work.wait_for_step(job_id, 1) for job_id in job_ids]
        environments = [Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in trainers]
    finally:
        work.stop()
        beside.join()
    seen = [line for environment in environments for line in environment if line.startswith("CUDA_VISIBLE_DEVICES=")]
    assert sorted(seen) == ["CUDA_VISIBLE_DEVICES=3", "CUDA_VISIBLE_DEVICES=5"]
