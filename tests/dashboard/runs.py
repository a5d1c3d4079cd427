"""Runs that a test drives step by step: submitted over REST, claimed, and told by the trainer's own events."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.lifecycle import JobState
from api.store import leases
from api.store.database import Database
from api.store.events import move
from client.http import Client
from stapo_core import events
from tests.dashboard.recorded import Answer, write_step
from worker.recorder import Attempt, Recorder

LEASE_S = 3600.0


class Run:
    """One run and the trainer's part in it: what it says goes the way of every trainer's events into rows."""

    def __init__(self, job_id: str, fence: int, database: Database, home: Path) -> None:
        self.id = job_id
        self.step = 0
        self._database = database
        self._dir = home / "runs" / job_id
        self._dir.mkdir(parents=True, exist_ok=True)
        self._attempt = Attempt(job_id, fence, self._dir, home / "artifacts", keep_checkpoints=30)
        self._recorder = Recorder(database, self._attempt)

    def start(self, *, resume_step: int = 0, num_steps: int = 40) -> None:
        """The trainer has loaded the model."""
        self.step = resume_step
        self._say(
            events.Started(
                time=time.time(),
                resume_step=resume_step,
                num_steps=num_steps,
                num_train_rows=64,
                num_parameters=1000,
                device="cpu",
                versions={},
            )
        )

    def take_steps(self, count: int, *, values: dict[str, float | None] | None = None) -> None:
        """Does `count` steps; `values` replaces figures of each."""
        done = []
        for _ in range(count):
            self.step += 1
            done.append(
                events.StepDone(time=time.time(), step=self.step, metrics=metrics_of(self.step) | (values or {}))
            )
        self._say(*done)

    def record(self, answers: list[Answer], *, write: Callable[[Path, list[Answer]], None] = write_step) -> None:
        """Records the responses of the present step, in full or as `write` does."""
        file = f"rollouts/step-{self.step:06d}.parquet"
        write(self._dir / file, answers)
        self._say(events.RolloutsRecorded(time=time.time(), step=self.step, file=file))

    def log(self, text: str) -> None:
        """The trainer prints something."""
        with (self._dir / "trainer.log").open("a") as log:
            log.write(text)

    def evaluate(self, reward: float) -> None:
        """Scores the validation file with the weights after the present step."""
        metrics: dict[str, float | None] = {"eval/reward_mean": reward, "eval/num_problems": 8.0}
        self._say(events.Evaluated(time=time.time(), step=self.step, metrics=metrics))

    def warn(self, message: str) -> None:
        """Says something that the user should know."""
        self._say(events.Warned(time=time.time(), message=message, step=self.step))

    def save(self, content: bytes, *, final: bool = False) -> str:
        """Saves a checkpoint whose weights are `content`; gives back their SHA-256."""
        name = f"checkpoints/step-{self.step:06d}"
        (self._dir / name).mkdir(parents=True)
        contents = {"model.safetensors": content, "config.json": b"{}"}
        files = []
        for path, held in contents.items():
            (self._dir / name / path).write_bytes(held)
            files.append(events.CheckpointFile(path=path, bytes=len(held), sha256=hashlib.sha256(held).hexdigest()))
        self._say(events.CheckpointSaved(time=time.time(), step=self.step, folder=name, files=files, final=final))
        return files[0].sha256

    def settle(self, state: JobState, *, error: dict[str, Any] | None = None) -> None:
        """Ends the run."""
        with self._database.transaction() as session:
            job = leases.hold(session, self.id, self._attempt.fence)
            job.error = error
            if state == JobState.SUCCEEDED:
                move(session, job, JobState.EXPORTING, "Exporting.")
            move(session, job, state, f"The job is {state}.")

    def restart(self, *, resume_step: int) -> Run:
        """The trainer dies, and another attempt goes on from a checkpoint."""
        failure = {"code": "crash", "message": "exit code 1", "param": None, "stage": "learning", "retryable": True}
        with self._database.transaction() as session:
            job = leases.hold(session, self.id, self._attempt.fence)
            leases.fail_attempt(session, job, failure, leases.RetryRule(max_attempts=9, backoff_s=0.0))
        run = claim(self._database, self.id, self._dir.parents[1])
        run.start(resume_step=resume_step)
        return run

    def _say(self, *said: events.Event) -> None:
        with (self._dir / "events.jsonl").open("a") as spool:
            spool.write("".join(event.model_dump_json() + "\n" for event in said))
        self._recorder.ship()


class Feed:
    """Makes runs on one service."""

    def __init__(self, client: Client, database: Database, home: Path) -> None:
        self.client = client
        self._database = database
        self._home = home
        self._queued: list[str] = []

    def submit(
        self, name: str, *, algorithm: str = "stapo", model: str = "tiny", num_steps: int = 40, **train: Any
    ) -> str:
        """Submits a job over REST; it stays queued until it is begun."""
        data = self._home / "problems.jsonl"
        data.write_text("".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(64)))
        file_id = self.client.upload_file(data)["id"]
        config = {"algorithm": {"kind": algorithm}, "num_steps": num_steps, "batch": {"num_prompts": 4}} | train
        grader = {"type": "numeric", "reference": "{{item.answer}}"}
        method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": config}}
        body = {"model": model, "training_file": file_id, "suffix": name, "method": method}
        job_id = str(self.client.create_job(body)["id"])
        self._queued.append(job_id)
        return job_id

    def begin(self, name: str, *, algorithm: str = "stapo", num_steps: int = 40, **train: Any) -> Run:
        """A run whose trainer has just loaded the model."""
        job_id = self.submit(name, algorithm=algorithm, num_steps=num_steps, **train)
        run = claim(self._database, job_id, self._home)
        self._queued.remove(job_id)
        run.start(num_steps=num_steps)
        return run

    def close(self) -> None:
        """Cancels what nobody began, lest another test's claim finds it."""
        for job_id in self._queued:
            if self.client.get_job(job_id)["state"] == JobState.QUEUED.value:
                self.client.cancel_job(job_id)


def claim(database: Database, job_id: str, home: Path) -> Run:
    """Takes the one job that waits."""
    with database.transaction() as session:
        job = leases.claim_job(session, worker="worker-1", lease_s=LEASE_S)
        assert job is not None
        assert job.id == job_id
        return Run(job.id, job.fence, database, home)


def metrics_of(step: int) -> dict[str, float | None]:
    """The figures of a step, all of them functions of its number."""
    return {
        "reward/mean": 1 - math.exp(-step / 20),
        "reward/std": 0.4,
        "reward/groups_without_advantage": 0.25,
        "reward/groups_all_zero": 0.125,
        "reward/groups_all_one": 0.125,
        "grader/error_share": 0.0,
        "response/length_mean": 20.0 + step % 3,
        "response/length_max": 32.0,
        "response/truncated": 0.01,
        "policy/entropy": 0.3 * math.exp(-step / 40) + 0.05,
        "policy/grad_norm": 0.5,
        "policy/clip_low": 0.001,
        "policy/clip_high": 0.002,
        "mask/ppm": 0.0 if step % 4 == 0 else 100.0 * (step % 4),
        "mask/grad_share": 0.001,
        "mask/entropy_change_share": 0.002,
        "sampler/logp_diff_mean": 1e-6,
        "sampler/logp_diff_max": 1e-5,
        "tokens/trained": 1000.0,
        "tokens/total": 1000.0 * step,
        "speed/tokens_per_s": 2000.0,
        "speed/step_s": 0.5,
        "speed/sample_s": 0.2,
        "speed/learn_s": 0.25,
        "speed/grade_s": 0.01,
        "memory/rss_mb": 800.0,
    }
