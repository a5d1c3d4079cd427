"""Kill what can be killed in mid-job: the job recovers, and every step is in the metrics once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from openai import OpenAI

from client.http import Client
from client.running import RunningPlatform
from tests.client.processes import processes_of
from tests.end_to_end.conftest import CreateJob, wait_for

NUM_STEPS = 60


def find_worker(home: Path) -> int:
    (pid,) = [pid for pid, command in processes_of(home).items() if "celery" in command]
    return pid


def steps_of(platform: RunningPlatform, job_id: str) -> list[int]:
    with Client(platform.api_url, platform.api_key) as client:
        return [point["step"] for point in client.get_metrics(job_id, kind="train")["data"]]


def test_a_killed_trainer_and_then_a_killed_worker_cost_no_step(
    openai: OpenAI, create_job: CreateJob, platform: RunningPlatform
) -> None:
    job_id = create_job(num_steps=NUM_STEPS).id
    lock = platform.home / "runs" / job_id / "lock"

    wait_for(openai, job_id, lambda job: getattr(job, "step", 0) >= 7)
    os.kill(int(lock.read_text()), signal.SIGKILL)
    wait_for(openai, job_id, lambda job: getattr(job, "attempt", 0) == 2 and getattr(job, "step", 0) >= 12)
    trainer, worker = int(lock.read_text()), find_worker(platform.home)
    os.kill(worker, signal.SIGKILL)

    done = wait_for(openai, job_id, lambda job: job.status == "succeeded")
    assert getattr(done, "attempt", 0) == 3
    assert steps_of(platform, job_id) == list(range(1, NUM_STEPS + 1))
    assert not Path(f"/proc/{trainer}").exists()
    messages = [event.message for event in openai.fine_tuning.jobs.list_events(job_id, limit=100)]
    assert any("was ended by signal 9" in message for message in messages)
    assert any("went silent" in message for message in messages)
