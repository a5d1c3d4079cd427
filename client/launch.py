"""The one-machine platform: one supervisor that owns Postgres, Valkey, the API, a worker and the dashboard.

It starts them in order, restarts what dies, and takes all with it when it goes, however it goes: each child asked
the kernel for a signal at our death. Signal handlers set a flag and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import httpx2

from client import services
from client.children import Child, Children, end_of
from client.lock import FileLock, Locked
from client.process import StartError, StopRequested, nobody, run_to_end, spawn
from client.servers import Server, start_postgres, start_valkey
from client.services import Service
from client.settings import LaunchSettings
from client.state import prepare_home

_READY_S = 180.0  # a loaded machine is slow
_TELL_EVERY_S = 10.0
_LEFTOVERS_S = 15.0
_TICK_S = 0.1
_MAX_LOG_BYTES = 20 * 2**20


class Supervisor:
    """Runs one platform until it is told to stop. `say` gets one line for each thing the user may want to know."""

    def __init__(self, settings: LaunchSettings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._num_stop_signals = 0
        self._children = Children(say)
        self._urls: dict[str, str] = {}
        self._held_fds: tuple[int, ...] = ()

    def run(self) -> None:
        """Returns when a signal asked for the end and all is down. Call from the main thread. Raises StartError."""
        with contextlib.suppress(StopRequested), _signals_to(self._on_signal), self._exclusive():
            try:
                self._start()
                while not self._is_stopping():
                    time.sleep(_TICK_S)
                    self._children.revive()
            finally:
                record_path(self._settings.home).unlink(missing_ok=True)
                self._children.stop(is_urgent=lambda: self._num_stop_signals > 1)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Holds the state folder, alone, with the ports free and nothing left of an earlier platform."""
        home = self._settings.home
        prepare_home(home, nobody() if os.geteuid() == 0 else None)
        with _one_supervisor(home) as lock, _no_leftovers(home, self._is_stopping) as children:
            lock.write_pid(os.getpid())
            record_path(home).unlink(missing_ok=True)  # of a supervisor that was killed
            self._held_fds = (children.fd,)
            check_port_is_free(self._settings.api_port, "API", "--port or STAPO_API_PORT")
            check_port_is_free(self._settings.dashboard_port, "dashboard", "--dashboard-port or STAPO_DASHBOARD_PORT")
            for log in (home / "logs").glob("*.log"):
                if log.stat().st_size > _MAX_LOG_BYTES:
                    log.replace(log.with_suffix(".log.1"))
            yield

    def _start(self) -> None:
        began = time.monotonic()
        self._say(f"Starting the platform in {self._settings.home}")
        self._start_stores()
        self._migrate()
        self._start_service(services.api(self._settings, self._urls))
        self._start_service(services.worker(self._settings, self._urls))
        self._start_service(services.dashboard(self._settings))
        self._wait_until_answering("API", f"{self._settings.api_url}/readyz")
        self._wait_until_answering("dashboard", f"{self._settings.dashboard_url}/_stcore/health")
        _write_record(self._settings)
        self._say(f"Ready after {time.monotonic() - began:.1f} s")
        self._say(f"API        {self._settings.api_url}")
        self._say(f"Dashboard  {self._settings.dashboard_url}")
        self._say(f"API key    {self._settings.key_path}")

    def _start_stores(self) -> None:
        """Starts ours, or takes the user's own."""
        home, logs, is_stopping = self._settings.home, self._settings.home / "logs", self._is_stopping

        def remember(variable: str, server: Server) -> subprocess.Popen[bytes]:
            self._urls[variable] = server.url
            return server.process

        def postgres() -> subprocess.Popen[bytes]:
            return remember("STAPO_DATABASE_URL", start_postgres(home, is_stopping=is_stopping))

        def valkey() -> subprocess.Popen[bytes]:
            return remember("STAPO_BROKER_URL", start_valkey(home, is_stopping=is_stopping))

        if self._settings.database_url:
            self._urls["STAPO_DATABASE_URL"] = self._settings.database_url
        else:
            self._children.add(Child("postgres", postgres, logs / "postgres.log", 3.0, signal.SIGINT, is_store=True))
        if self._settings.broker_url:
            self._urls["STAPO_BROKER_URL"] = self._settings.broker_url
        else:
            self._children.add(Child("valkey", valkey, logs / "valkey.log", 1.0, signal.SIGTERM, is_store=True))

    def _migrate(self) -> None:
        command = services.migration(self._settings, self._urls)
        if run_to_end(command, is_stopping=self._is_stopping, pass_fds=self._held_fds) != 0:
            raise StartError(f"The database schema could not be brought up to date.\n{end_of(command.log)}")

    def _start_service(self, service: Service) -> None:
        self._raise_if_stopping()
        command = service.command
        start = lambda: spawn(command, pass_fds=self._held_fds)  # noqa: E731  # a name would say no more
        self._children.add(Child(service.name, start, command.log, service.grace_s))

    def _wait_until_answering(self, name: str, url: str) -> None:
        began = told_at = time.monotonic()
        answer = "no answer"
        with httpx2.Client(timeout=2.0, trust_env=False) as http:
            while (now := time.monotonic()) - began < _READY_S:
                if now - told_at > _TELL_EVERY_S:
                    told_at = now
                    self._say(f"Waiting for the {name} for {now - began:.0f} s; it says: {answer}")
                self._raise_if_stopping()
                self._children.check_alive()
                with contextlib.suppress(httpx2.TransportError):
                    response = http.get(url)
                    if response.is_success:
                        return
                    answer = response.text
                time.sleep(_TICK_S)
        logs = self._settings.home / "logs"
        raise StartError(f"{url} was not ready within {_READY_S:.0f} s; it says: {answer}. Logs: {logs}")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._num_stop_signals += 1

    def _is_stopping(self) -> bool:
        return self._num_stop_signals > 0

    def _raise_if_stopping(self) -> None:
        if self._is_stopping():
            raise StopRequested


def record_path(home: Path) -> Path:
    """Where a platform that is ready writes its addresses."""
    return home / "platform.json"


def check_port_is_free(port: int, name: str, setting: str) -> None:
    """Raises StartError, naming the port and the setting, when somebody listens on it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(
                f"Port {port} is not free, so the {name} cannot listen there ({error.strerror}). "
                f"Choose another with {setting}."
            ) from error


def _write_record(settings: LaunchSettings) -> None:
    record = {"pid": os.getpid(), "api_url": settings.api_url, "dashboard_url": settings.dashboard_url}
    path = record_path(settings.home)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(record))
    unfinished.replace(path)


@contextlib.contextmanager
def _one_supervisor(home: Path) -> Iterator[FileLock]:
    try:
        lock = FileLock(home / "supervisor.lock")
    except Locked as error:
        raise StartError(
            f"The platform in {home} is running already: process {error.pid} holds it. "
            f"Stop that one with Ctrl-C or `kill {error.pid}`, or start another in its own folder with STAPO_HOME."
        ) from error
    with lock:
        yield lock


@contextlib.contextmanager
def _no_leftovers(home: Path, is_stopping: Callable[[], bool]) -> Iterator[FileLock]:
    """Waits until the children of a supervisor that was killed are gone; ours inherit the lock in their turn."""
    try:
        lock = FileLock(home / "children.lock", wait_s=_LEFTOVERS_S, is_stopping=is_stopping)
    except Locked as error:
        raise StartError(f"Processes of an earlier platform in {home} are still running and do not end.") from error
    with lock:
        yield lock


@contextlib.contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
