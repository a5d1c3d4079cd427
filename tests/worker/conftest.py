"""A real database with a file and a job in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.settings import Settings
from api.store import jobs
from api.store.database import Database
from api.store.jobs import Base, NewJob
from api.store.tables import File, Job
from tests.worker.spools import Run

AddJob = Callable[..., str]
ReadJob = Callable[[str], Job]


@pytest.fixture
def settings(home: Path, fresh_database: str, valkey_url: str) -> Settings:
    return Settings(
        home=home,
        database_url=fresh_database,
        broker_url=valkey_url,
        lease_s=6.0,
        heartbeat_s=1.0,
        poll_s=0.1,
        sweep_s=0.5,
        cancel_grace_s=15.0,
        backoff_s=0.1,
        max_attempts=3,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    yield database
    database.close()


@pytest.fixture
def add_job(database: Database) -> AddJob:
    def add(*, model: str = "m", num_steps: int = 10, base: Base | None = None, **train: Any) -> str:
        with database.transaction() as session:
            if session.get(File, "file-1") is None:
                session.add(File(id="file-1", tenant="t", filename="f", purpose="fine-tune", bytes=1, sha256="0"))
                session.flush()
            short = {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}
            method = {
                "grader": {"type": "numeric", "reference": "{{item.answer}}"},
                "hyperparameters": short,
                "config": {"num_steps": num_steps, "checkpoint": {"keep": 2}} | train,
            }
            new = NewJob(
                model=model,
                training_file="file-1",
                validation_file=None,
                suffix=None,
                seed=7,
                method={"type": "reinforcement", "reinforcement": method},
                num_steps=num_steps,
                base=base,
            )
            return jobs.create_job(session, "t", new).id

    return add


@pytest.fixture
def read_job(database: Database) -> ReadJob:
    def read(job_id: str) -> Job:
        with database.transaction() as session:
            return jobs.get_job(session, "t", job_id)

    return read


@pytest.fixture
def run(database: Database, settings: Settings, add_job: AddJob) -> Run:
    return Run(database, settings, add_job)
