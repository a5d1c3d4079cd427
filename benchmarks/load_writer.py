"""Trains nothing and says it does: `python -m benchmarks.load_writer STEPS_PER_S JOB...` writes the spools of jobs and
ships them as a worker would, until its input closes. Steps carry the time at which they were said.
"""

from __future__ import annotations

import random
import select
import sys
import threading
import time
from pathlib import Path

from api.lifecycle import JobState
from api.settings import get_settings
from api.store import leases
from api.store.database import Database
from api.store.events import move
from benchmarks.live_service import METRIC_KEYS
from stapo_core.events import StepDone
from worker.recorder import Attempt, Recorder

LEASE_S = 3600.0


class FakeRun:
    """One claimed job: its spool grows at a rate, its recorder ships."""

    def __init__(self, database: Database, job_id: str, fence: int, first_step: int) -> None:
        settings = get_settings()
        self.run_dir: Path = settings.runs_dir / job_id
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._step = first_step
        self._source = random.Random(job_id)
        self._recorder = Recorder(
            database, Attempt(job_id, fence, self.run_dir, settings.artifacts_dir, keep_checkpoints=2)
        )

    def say_step(self) -> None:
        """Appends a step to the spool."""
        self._step += 1
        metrics: dict[str, float | None] = {key: round(self._source.random(), 6) for key in METRIC_KEYS}
        event = StepDone(time=time.time(), step=self._step, metrics=metrics)
        with (self.run_dir / "events.jsonl").open("a") as spool:
            spool.write(event.model_dump_json() + "\n")

    def ship_forever(self, poll_s: float, stopping: threading.Event) -> None:
        """What the worker's thread of the job does."""
        while not stopping.wait(poll_s):
            self._recorder.ship()


def main() -> None:
    """Claims as many jobs as are named and lets them run."""
    rate, wanted = float(sys.argv[1]), set(sys.argv[2:])
    settings = get_settings()
    database, stopping = Database(settings.database_url, pool_size=len(wanted)), threading.Event()
    runs: list[FakeRun] = []
    while len(runs) < len(wanted):
        with database.transaction() as session:
            job = leases.claim_job(session, worker="bench", lease_s=LEASE_S)
            assert job is not None, "there are fewer jobs to claim than runs to make"
            move(session, job, JobState.RUNNING, "Runs.")
            runs.append(FakeRun(database, job.id, job.fence, job.step))
    for run in runs:
        threading.Thread(target=run.ship_forever, args=(settings.poll_s, stopping), daemon=True).start()
    print("ready", flush=True)
    started, number = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0.0, started + number / rate - time.monotonic()))[0]:
        runs[number % len(runs)].say_step()
        number += 1
    stopping.set()
    print(number)


if __name__ == "__main__":
    main()
