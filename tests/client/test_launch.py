"""The one-machine platform: one supervisor, and nothing of it left however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from client import launch
from client.connection import read_record
from client.http import ApiUnreachable, Client
from client.objects import JobObject
from client.process import StartError
from client.running import RunningPlatform
from client.settings import read_settings
from tests.client.processes import processes_of, wait_until_gone
from tests.conftest import find_free_port

GONE_WITHIN_S = 10.0
READY_WITHIN_S = 90.0  # the promise is 15 s on a machine of one's own; here others work beside us


@dataclass
class Launcher:
    """Starts `stapo up` again and again in one state folder."""

    home: Path
    api_port: int
    dashboard_port: int
    process: subprocess.Popen[str] | None = None

    def start(self, **env: str) -> subprocess.Popen[str]:
        ports = ["--port", str(self.api_port), "--dashboard-port", str(self.dashboard_port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client.cli", "up", *ports],
            env=os.environ | {"STAPO_HOME": str(self.home), "OMP_NUM_THREADS": "1"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_WITHIN_S
        while not is_so():
            assert self.process.poll() is None, f"ended before {what}: {self.process.communicate()[0]}"
            assert time.monotonic() < deadline, f"not {what} in time"
            time.sleep(0.05)

    def wait_until_ready(self) -> None:
        assert self.process is not None
        pid = str(self.process.pid)
        self.wait_until(lambda: (read_record(self.home) or {}).get("pid") == pid, "ready")

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.api_port}", (self.home / "api_key").read_text().strip())


@pytest.fixture
def launcher(home: Path) -> Iterator[Launcher]:
    made = Launcher(home, find_free_port(), find_free_port())
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()
        wait_until_gone(home, within_s=GONE_WITHIN_S)


def test_who_waits_is_told_what_for(home: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_READY_S", 1.0)
    monkeypatch.setattr(launch, "_TELL_EVERY_S", 0.3)
    said: list[str] = []
    supervisor = launch.Supervisor(read_settings({"STAPO_HOME": str(home)}), said.append)
    with pytest.raises(StartError, match="was not ready within 1 s"):
        supervisor._wait_until_answering("API", f"http://127.0.0.1:{free_port}/readyz")
    assert 1 <= len(said) <= 3
    assert all(line.startswith("Waiting for the API for ") for line in said)


def is_training(job: JobObject) -> bool:
    assert job["state"] != "failed", job["error"]
    return int(job["step"] or 0) >= 1


def start_endless_job(launcher: Launcher, base: Path) -> str:
    """Submits a job that would run for hours and waits until it trains."""
    model = launcher.home / "models" / "tiny"
    if not model.exists():
        model.parent.mkdir(exist_ok=True)
        shutil.copytree(base / "model", model)
    config = {
        "num_steps": 100_000,
        "batch": {"num_prompts": 2, "group_size": 2},
        "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 32},
        "checkpoint": {"every_steps": 100_000, "every_s": 1e6},
    }
    with launcher.client() as client:
        file = client.upload_file(base / "train.jsonl")
        grader = {"type": "numeric", "reference": "{{item.answer}}"}
        method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": config}}
        job = client.create_job({"model": "tiny", "training_file": file["id"], "method": method})
        launcher.wait_until(lambda: is_training(client.get_job(job["id"])), "training")
    return str(job["id"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_whenever_and_however_it_ends_and_the_next_start_works(
    launcher: Launcher, warm_base: Path, number: signal.Signals
) -> None:
    def end(at: str) -> None:
        assert launcher.process is not None
        launcher.process.send_signal(number)
        left = wait_until_gone(launcher.home, within_s=GONE_WITHIN_S)
        assert left == {}, f"left after {number.name} {at}"

    launcher.start()
    launcher.wait_until((launcher.home / "logs" / "initdb.log").exists, "making its database")
    end("while it makes its database")

    launcher.start()
    launcher.wait_until((launcher.home / "logs" / "worker.log").exists, "starting its worker")
    end("while it starts its services")

    launcher.start()
    launcher.wait_until_ready()
    job = start_endless_job(launcher, warm_base)
    end("while a job trains")

    process = launcher.start()
    launcher.wait_until_ready()
    with launcher.client() as client:
        assert client.get_job(job)["state"] in {"queued", "recovering", "starting", "running"}
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    end("while it stops")

    launcher.start()
    launcher.wait_until_ready()


def test_a_stop_that_was_asked_for_is_a_success_and_lets_the_trainer_save(launcher: Launcher, warm_base: Path) -> None:
    process = launcher.start()
    launcher.wait_until_ready()
    job = start_endless_job(launcher, warm_base)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=GONE_WITHIN_S)
    assert process.returncode == 0, said
    assert f"API        http://127.0.0.1:{launcher.api_port}" in said
    assert str(launcher.home / "api_key") in said
    assert "Stopping" in said
    assert list((launcher.home / "runs" / job / "checkpoints").glob("step-*"))
    assert read_record(launcher.home) is None


def test_a_second_start_names_the_process_that_holds_the_folder(platform: RunningPlatform) -> None:
    second = Launcher(platform.home, find_free_port(), find_free_port()).start()
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert platform.process is not None
    assert f"process {platform.process.pid} holds it" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("taken", "setting"), [("api_port", "STAPO_API_PORT"), ("dashboard_port", "STAPO_DASHBOARD_PORT")]
)
def test_a_taken_port_is_a_sentence_with_the_port_and_the_setting(launcher: Launcher, taken: str, setting: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", getattr(launcher, taken)))
        listener.listen()
        said, _ = launcher.start().communicate(timeout=30)
    assert f"Port {getattr(launcher, taken)} is not free" in said
    assert setting in said
    assert "Traceback" not in said
    assert processes_of(launcher.home) == {}


def find_part(platform: RunningPlatform, program: str) -> int | None:
    return next((pid for pid, line in processes_of(platform.home).items() if program in line), None)


def is_well(platform: RunningPlatform) -> bool:
    try:
        with Client(platform.api_url, platform.api_key) as client:
            return bool(client.ready()["status"] == "ok")
    except ApiUnreachable:
        return False


@pytest.mark.parametrize("program", ["bin/postgres -D", "valkey-server", "-m uvicorn", "-m celery", "-m streamlit"])
def test_a_part_that_is_killed_comes_back(platform: RunningPlatform, program: str) -> None:
    first = find_part(platform, program)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if is_well(platform) and find_part(platform, program) not in (first, None):
            return
        time.sleep(0.1)
    raise AssertionError(f"{program} did not come back: {processes_of(platform.home)}")


def test_servers_of_ones_own_are_used_and_ours_are_not_started(
    launcher: Launcher, empty_database: str, valkey_url: str
) -> None:
    launcher.start(STAPO_DATABASE_URL=empty_database, STAPO_BROKER_URL=valkey_url)
    launcher.wait_until_ready()
    assert not any("postgres -D" in line or "valkey-server" in line for line in processes_of(launcher.home).values())
    with psycopg.connect(empty_database.replace("+psycopg", "")) as connection:
        assert connection.execute("select count(*) > 0 from pg_tables where tablename = 'jobs'").fetchone() == (True,)
