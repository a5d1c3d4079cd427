"""The platform as `stapo up` runs it, its supervisor killed in mid-job: all goes with it, and the next goes on.

A job with the real trainer is interrupted again and again; in the end each of its steps is in the record once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.http import Client
from client.process import StartError
from client.running import RunningPlatform, start_platform
from client.settings import read_settings
from tests.chaos.site import GRADER, MAKE_MODEL, QUICK, ROOT, training_file
from tests.client.processes import wait_until_gone
from tests.conftest import find_free_port

STEPS_A_ROUND = 60
"""Three times what an idle machine of two cores does between two kills, so that the job outlasts them all."""
ENDED = ("succeeded", "failed", "cancelled")
GONE_S = 20.0
PATIENCE_S = 180.0


def kill_supervisors(*, rounds: int, seed: int, on_progress: Callable[[int], None]) -> list[str]:
    """So many supervisors killed with -9 at random moments of one job; what was broken."""
    source, breaches = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="stapo-chaos-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        model = home / "models" / "tiny"
        model.parent.mkdir()
        subprocess.run([sys.executable, "-c", MAKE_MODEL, str(model)], cwd=ROOT, check=True, capture_output=True)
        platform = _start(home)
        num_steps = STEPS_A_ROUND * rounds
        job_id = _submit(platform, num_steps)
        for number in range(rounds):
            step = _read(platform, job_id, lambda client: client.get_job(job_id))["step"]
            if _wait_for_step(platform, job_id, step + 1)["status"] in ENDED:
                breaches.append(f"the job had ended when {number} supervisors were killed")
                break
            time.sleep(source.random())
            assert platform.process is not None
            os.kill(platform.process.pid, signal.SIGKILL)
            platform.process.wait()
            if left := wait_until_gone(home, within_s=GONE_S):
                breaches.append(f"round {number + 1}: {len(left)} processes outlived their supervisor: {left}")
            platform = _start(home)
            on_progress(number + 1)
        try:
            breaches += _look(platform, job_id, rounds, num_steps)
        finally:
            platform.stop()
    return breaches


def _start(home: Path) -> RunningPlatform:
    quick = {f"STAPO_{name}": value for name, value in QUICK.items()} | {"STAPO_STALL_S": "300"}
    env = os.environ | quick | {"STAPO_HOME": str(home), "OMP_NUM_THREADS": "1"}
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return start_platform(read_settings(env, api_port=find_free_port(), dashboard_port=find_free_port()))
        except StartError:  # a machine that is busy with others; how long a start may take is promised elsewhere
            if time.monotonic() > deadline:
                raise


def _submit(platform: RunningPlatform, num_steps: int) -> str:
    config = {"num_steps": num_steps, "batch": {"num_prompts": 2, "group_size": 2}, "checkpoint": {"every_steps": 5}}
    sampling = {"sampling": {"max_prompt_tokens": 8, "max_response_tokens": 8}, "record_rollouts_every": 0}
    with Client(platform.api_url, platform.api_key) as client, training_file() as path:
        file_id = client.upload_file(path)["id"]
        method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "config": config | sampling}}
        body = {"model": "tiny", "training_file": file_id, "seed": 7, "method": method}
        return str(client.create_job(body)["id"])


def _wait_for_step(platform: RunningPlatform, job_id: str, step: int) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = _read(platform, job_id, lambda client: client.get_job(job_id))
        if job["step"] >= step or job["status"] in ENDED:
            return job
        time.sleep(0.05)
    raise RuntimeError(f"still at step {job['step']}, {job['state']}")


def _look(platform: RunningPlatform, job_id: str, rounds: int, num_steps: int) -> list[str]:
    """The job, its attempts and its steps."""
    job = _wait_for_step(platform, job_id, num_steps + 1)
    points = _read(platform, job_id, lambda client: client.get_metrics(job_id, kind="train"))["data"]
    steps = [point["step"] for point in points]
    breaches = [] if job["status"] == "succeeded" else [f"the job is {job['status']}: {job['error']}"]
    if job["attempt"] <= rounds:
        breaches.append(f"{rounds} supervisors were killed and only {job['attempt'] - 1} attempts with them")
    if sorted(steps) != list(range(1, num_steps + 1)):
        breaches.append(f"{len(steps)} steps are in the record, {len(set(steps))} different ones of {num_steps}")
    return breaches


def _read(platform: RunningPlatform, job_id: str, ask: Callable[[Client], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with Client(platform.api_url, platform.api_key) as client:
                return ask(client)
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
