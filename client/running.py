"""A platform that runs beside us: found in its state folder, or started in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from client.connection import find_api_key, read_record
from client.errors import ClientError
from client.http import Client
from client.process import Command, StartError, never, nobody, spawn, stop
from client.settings import LaunchSettings
from client.state import prepare_home

_START_S = 600.0  # longer than the platform waits for all its parts
_STOP_S = 20.0


@dataclass
class RunningPlatform:
    """Addresses of a platform that is ready. `process` is its supervisor when we started it."""

    home: Path
    api_url: str
    dashboard_url: str
    api_key: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the supervisor that we started still runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Stops it, with all its processes, if it is ours."""
        if self.process is not None:
            stop(self.process, first=signal.SIGTERM, grace_s=_STOP_S)


def find_platform(home: Path) -> RunningPlatform | None:
    """The platform that runs in `home` and is ready, if there is one."""
    record = read_record(home)
    if record is None:
        return None
    try:
        key = find_api_key({}, home)
        with Client(record["api_url"], key, timeout_s=5.0) as client:
            if client.ready().get("status") != "ok":
                return None
    except ClientError:
        return None
    return RunningPlatform(home, record["api_url"], record["dashboard_url"], key)


def start_platform(settings: LaunchSettings, *, is_stopping: Callable[[], bool] = never) -> RunningPlatform:
    """Starts `stapo up` in a process that stops when we do; returns when it is ready. Raises StartError."""
    prepare_home(settings.home, nobody() if os.geteuid() == 0 else None)
    log = settings.home / "logs" / "supervisor.log"
    length_before = log.stat().st_size if log.exists() else 0
    process = spawn(_up_command(settings, settings.env, log))
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None and not is_stopping():
        record = read_record(settings.home)
        if record is not None and record["pid"] == str(process.pid):
            key = find_api_key({}, settings.home)
            return RunningPlatform(settings.home, record["api_url"], record["dashboard_url"], key, process)
        time.sleep(0.05)
    stop(process, first=signal.SIGTERM, grace_s=_STOP_S)
    with log.open("rb") as file:
        file.seek(length_before)
        said = file.read().decode(errors="replace").strip()
    raise StartError(f"The platform did not start.\n{said}")


def _up_command(settings: LaunchSettings, env: Mapping[str, str], log: Path) -> Command:
    ports = ("--port", str(settings.api_port), "--dashboard-port", str(settings.dashboard_port))
    return Command(
        arguments=(sys.executable, "-P", "-m", "client.cli", "up", *ports),
        env=dict(env) | {"STAPO_HOME": str(settings.home), "COLUMNS": "200"},
        log=log,
        folder=Path(os.sep),
        death_signal=signal.SIGTERM,  # so that it stops its children in order
    )
