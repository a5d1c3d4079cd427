"""The faults: which there are, how often each comes in a storm, and how each is done to a running site.

A place is a failpoint inside a process; everything else happens to a process, a server, the network, a clock or a
disk from outside. `phase` is the row of the report that a fault counts in.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stapo_core.failpoints import PASSED, PLACES
from tests.chaos.site import Process, Site, descendants

AWAY_S = 1.5  # in leases: how long somebody is suspended, so that all that it held is given away


@dataclass(frozen=True)
class Fault:
    """One fault."""

    phase: str
    action: str


AT_PLACES = {"kill": 5, "stop": 1, "raise ENOSPC": 1, "raise EIO": 1, "sleep 0.7": 1}
FROM_OUTSIDE: dict[tuple[str, str], int] = {
    ("worker", "kill"): 5,
    ("worker", "term"): 3,
    ("worker", "stop"): 4,
    ("trainer", "kill"): 7,
    ("trainer", "term"): 3,
    ("trainer", "stop"): 2,
    ("both", "kill"): 4,
    ("api and dispatcher", "kill"): 3,
    ("api and dispatcher", "stop"): 1,
    ("valkey", "kill"): 2,
    ("valkey", "flush"): 2,
    ("valkey", "wipe"): 2,
    ("postgres", "kill"): 2,
    ("postgres", "stop"): 1,
    ("postgres", "freeze"): 1,
    ("network", "reset"): 4,
    ("network", "hold"): 2,
    ("network", "delay"): 2,
    ("clock", "jump"): 4,
    ("disk", "limit"): 4,
}


def plan(num_faults: int, *, seed: int, per_phase: int = 0) -> list[Fault]:
    """So many faults in random order, every kind in turn, and at least `per_phase` in each phase."""
    source = random.Random(seed)
    one_round = [Fault(place, action) for place in PLACES for action, n in AT_PLACES.items() for _ in range(n)]
    one_round += [Fault(phase, action) for (phase, action), n in FROM_OUTSIDE.items() for _ in range(n)]
    chosen: list[Fault] = []
    while len(chosen) < num_faults:
        source.shuffle(one_round)
        chosen += one_round[: num_faults - len(chosen)]
    for phase in dict.fromkeys(fault.phase for fault in one_round):
        kinds = [fault for fault in one_round if fault.phase == phase]
        missing = per_phase - sum(fault.phase == phase for fault in chosen)
        chosen += [kinds[i % len(kinds)] for i in range(max(0, missing))]
    source.shuffle(chosen)
    return chosen


class Hand:
    """Does faults to a site, and takes back what must not stay, after `away` leases or by `take_back`."""

    def __init__(self, site: Site, source: random.Random, *, away: float = AWAY_S) -> None:
        self.site = site
        self.source = source
        self.lease_s = float(site.quick["LEASE_S"])
        self._away_s = away * self.lease_s
        self._later: list[tuple[threading.Timer, Callable[[], object]]] = []

    def arm(self, fault: Fault) -> None:
        """Arms a place; it is done when `delivered` tells of it."""
        draft = self.site.failpoints / f".new-{fault.phase}"
        draft.write_text(fault.action)
        draft.rename(self.site.failpoints / fault.phase)

    def disarm(self, fault: Fault) -> bool:
        """Takes an arming back; false when somebody was faster, and `delivered` will tell of it."""
        try:
            (self.site.failpoints / fault.phase).unlink()
        except FileNotFoundError:
            return False
        return True

    def delivered(self) -> list[Fault]:
        """The armed places that somebody came by since the last call; whoever was suspended there will go on."""
        found = []
        for path in sorted((self.site.failpoints / PASSED).iterdir()):
            _, pid, place = path.name.split("-")
            action = path.read_text().partition(" @")[0].strip()
            path.unlink()
            found.append(Fault(place, action))
            if action == "stop":
                self._later_on(lambda pid=int(pid): _signal(pid, signal.SIGCONT))  # type: ignore[misc]
        return found

    def strike(self, fault: Fault) -> bool:
        """Does a fault from outside; false when there was nobody to do it to."""
        target, action = fault.phase.split()[0], fault.action
        return bool(getattr(self, f"_{target}")(action))

    def take_back(self) -> None:
        """Undoes at once what would be undone later."""
        for timer, undo in self._later:
            timer.cancel()
            undo()
        self._later.clear()

    def _later_on(self, undo: Callable[[], object]) -> None:
        """By a thread of its own: whoever uses the site may be waiting for just this."""
        timer = threading.Timer(self._away_s, undo)
        timer.daemon = True
        timer.start()
        self._later.append((timer, undo))

    # --- processes

    def _worker(self, action: str) -> bool:
        worker = self._busy_worker()
        return worker is not None and self._hit(worker, action)

    def _api(self, action: str) -> bool:
        return self._hit(self.site.processes["api"], action)

    def _trainer(self, action: str) -> bool:
        pid = self._some_trainer()
        return pid is not None and self._send(pid, action)

    def _both(self, action: str) -> bool:
        """A worker and its trainers, at once."""
        worker = self._busy_worker()
        if worker is None or worker.pid is None:
            return False
        for pid in [worker.pid, *descendants(worker.pid)]:
            _signal(pid, signal.SIGKILL)
        return True

    def _hit(self, process: Process, action: str) -> bool:
        return process.pid is not None and self._send(process.pid, action)

    def _send(self, pid: int, action: str) -> bool:
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}[action]
        if action == "stop":
            self._later_on(lambda: _signal(pid, signal.SIGCONT))
        return _signal(pid, number)

    def _busy_worker(self) -> Process | None:
        """One that has a trainer: a worker that is only starting is no fault's victim."""
        busy = [worker for worker in self.site.workers() if worker.pid and descendants(worker.pid)]
        return self.source.choice(busy) if busy else None

    def _some_trainer(self) -> int | None:
        below = [pid for worker in self.site.workers() if worker.pid for pid in descendants(worker.pid)]
        return self.source.choice(below) if below else None

    # --- servers

    def _valkey(self, action: str) -> bool:
        process = self.site.processes["valkey"]
        if process.pid is None or process.popen is None:
            return False
        if action == "flush":
            return _say(Path(urlsplit(self.site.valkey.url).path), b"FLUSHALL\r\n")
        process.popen.kill()
        process.popen.wait()
        if action == "wipe":
            for path in (self.site.home / "valkey").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return True

    def _postgres(self, action: str) -> bool:
        process = self.site.processes["postgres"]
        if process.pid is None or process.popen is None:
            return False
        if action == "kill":
            process.popen.kill()
            process.popen.wait()
        elif action == "stop":
            self.site.postgres.stop()
            time.sleep(1.0)
        else:  # frozen past every lease; nothing can be asked meanwhile
            frozen = [process.pid, *descendants(process.pid)]
            for pid in frozen:
                _signal(pid, signal.SIGSTOP)
            time.sleep(self._away_s)
            for pid in reversed(frozen):
                _signal(pid, signal.SIGCONT)
        return True

    # --- network, clock, disk

    def _network(self, action: str) -> bool:
        name = self.source.choice([name for name in self.site.proxies if name != "valkey"] * 3 + ["valkey"])
        proxy = self.site.proxies[name]
        if action == "reset":
            return proxy.reset()
        proxy.mode = action  # type: ignore[assignment]
        self._later_on(lambda: setattr(proxy, "mode", "pass"))
        return True

    def _clock(self, action: str) -> bool:
        """The wall clock of a worker and its trainers."""
        worker = self._busy_worker()
        if worker is None or worker.pid is None:
            return False
        pids = [worker.pid, *descendants(worker.pid)]
        return sum(_is_set_up(pid) and _signal(pid, signal.SIGUSR2) for pid in pids) > 1

    def _disk(self, action: str) -> bool:
        """No file of a trainer may grow any more."""
        pid = self._some_trainer()
        with contextlib.suppress(OSError, ValueError):
            if pid is not None:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.source.randrange(1, 3000), resource.RLIM_INFINITY))
                return True
        return False


def _is_set_up(pid: int) -> bool:
    """Whether the process has come so far that it handles its signals: SIGUSR2 would kill it before."""
    with contextlib.suppress(OSError):  # it is gone
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)
    return False


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _say(address: Path, line: bytes) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        try:
            connection.connect(str(address))
            connection.sendall(line)
            return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False
