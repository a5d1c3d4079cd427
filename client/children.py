"""The processes a supervisor owns: started once, started again when they die, stopped in order. Knows no platform."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.process import StartError, kill_group, tail

_MAX_CRASHES = 5
_STEADY_S = 60.0  # a process that lived this long has a clean record again
_FIRST_WAIT_S = 0.5


@dataclass
class Child:
    """A process that is to stay alive, and how often it did not. `stop_signal` comes first, SIGKILL after `grace_s`."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    log: Path
    grace_s: float
    stop_signal: signal.Signals = signal.SIGTERM
    is_store: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    num_crashes: int = 0
    restart_at: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None


class Children:
    """All of a platform's processes. `say` gets a line when one dies and comes back."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._all: list[Child] = []

    def add(self, child: Child) -> None:
        """Starts it, and owns it from then on."""
        child.process = child.start()
        child.started = time.monotonic()
        self._all.append(child)

    def check_alive(self) -> None:
        """Raises StartError, with the log's end, when one has ended."""
        for child in self._all:
            if not child.is_running:
                raise StartError(f"The {child.name} ended while it started.\n{end_of(child.log)}")

    def revive(self) -> None:
        """Starts again what has died, each time later. Raises StartError when one will not stay alive."""
        for child in self._all:
            now = time.monotonic()
            if child.process is not None and child.process.poll() is not None:
                self._schedule(child, now, child.process.returncode)
            if child.restart_at is not None and now >= child.restart_at:
                self._say(f"Starting the {child.name} again")
                child.restart_at, child.started = None, now
                try:
                    child.process = child.start()
                except StartError as error:
                    self._say(str(error))
                    self._schedule(child, now, None)

    def stop(self, is_urgent: Callable[[], bool]) -> None:
        """Stops the guests all at once, then the stores in the reverse order of their start.

        `is_urgent` cuts the guests' time short; the stores always get theirs, so that no data needs repair.
        """
        if self._all:
            self._say("Stopping")
        self._stop_together([child for child in self._all if not child.is_store], is_urgent)
        for store in reversed([child for child in self._all if child.is_store]):
            self._stop_together([store], lambda: False)

    def _schedule(self, child: Child, now: float, code: int | None) -> None:
        child.process = None
        child.num_crashes = 1 if now - child.started > _STEADY_S else child.num_crashes + 1
        if child.num_crashes > _MAX_CRASHES:
            raise StartError(
                f"The {child.name} ended {child.num_crashes} times in a row; the platform stops.\n{end_of(child.log)}"
            )
        wait = _FIRST_WAIT_S * 2 ** (child.num_crashes - 1)
        child.restart_at = now + wait
        self._say(f"The {child.name} ended (code {code}) and starts again in {wait:.1f} s. Log: {child.log}")

    def _stop_together(self, children: list[Child], is_urgent: Callable[[], bool]) -> None:
        running = [(child, child.process) for child in reversed(children) if child.process is not None]
        for child, process in running:
            process.send_signal(child.stop_signal)
        began = time.monotonic()
        for child, process in running:
            while process.poll() is None:
                if time.monotonic() - began > child.grace_s or is_urgent():
                    kill_group(process)
                    process.wait()
                else:
                    time.sleep(0.02)


def end_of(log: Path) -> str:
    """The log's end under a line that names it."""
    return f"The end of {log}:\n{tail(log)}"
