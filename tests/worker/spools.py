"""A claimed job whose trainer is the test itself: it writes the spool by hand, and a recorder ships it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.settings import Settings
from api.store import artifacts, jobs, leases, metrics
from api.store.database import Database
from api.store.events import list_events
from api.store.metrics import MetricsFilter
from stapo_core import events
from worker.recorder import Attempt, Recorder

T = 1_790_000_000.0


class Run:
    """One claimed job, and a trainer's spool written by hand."""

    def __init__(self, database: Database, settings: Settings, add_job: Callable[..., str]) -> None:
        self.database, self.settings = database, settings
        self.job_id = add_job()
        self.claim()

    def claim(self) -> None:
        with self.database.transaction() as session:
            job = leases.claim_job(session, worker="w", lease_s=60.0)
            assert job is not None
            run_dir = self.settings.runs_dir / job.id
            run_dir.mkdir(parents=True, exist_ok=True)
            self.attempt = Attempt(job.id, job.fence, run_dir, self.settings.artifacts_dir, keep_checkpoints=2)
        self.recorder = Recorder(self.database, self.attempt)

    @property
    def spool(self) -> Path:
        return self.attempt.run_dir / "events.jsonl"

    def say(self, *said: events.Event) -> None:
        with self.spool.open("a") as spool:
            spool.writelines(event.model_dump_json() + "\n" for event in said)

    def save(self, step: int, *, final: bool = False, best: bool = False) -> None:
        folder = self.attempt.run_dir / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        content = f"weights {step}".encode()
        (folder / "model.safetensors").write_bytes(content)
        file = events.CheckpointFile(
            path="model.safetensors", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        relative = str(folder.relative_to(self.attempt.run_dir))
        self.say(events.CheckpointSaved(time=T, step=step, folder=relative, files=[file], final=final, best=best))

    def metrics(self) -> list[tuple[str, int, int]]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            rows = metrics.read_points(session, job, MetricsFilter(), max_points=None).data
            return [(row.kind, row.step, row.fence) for row in rows]

    def told(self) -> list[tuple[str, str]]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            return [
                (event.kind, event.message)
                for event in list_events(session, job, after=None, limit=100, order="asc").rows
            ]

    def checkpoint_steps(self) -> list[int]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            return [row.step for row in artifacts.list_checkpoints(session, job, after=None, limit=9, order="asc").rows]


def started(resume_step: int = 0) -> events.Started:
    return events.Started(
        time=T,
        resume_step=resume_step,
        num_steps=10,
        num_train_rows=100,
        num_parameters=1000,
        device="cpu",
        versions={},
    )


def step(number: int, **values: Any) -> events.StepDone:
    return events.StepDone(time=T, step=number, metrics={"tokens/trained": 100.0, **values})
