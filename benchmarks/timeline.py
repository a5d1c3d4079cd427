"""What happened in each second of a load, so that a stall says where it came from.

Three probes beside the load, each a thread: how late a sleeper wakes (the machine), how long `/healthz` takes, which
needs the API's event loop and nothing else, and how long Postgres takes to say how many transactions are open; and who
used the processors.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from sqlalchemy import text

from benchmarks.live_service import LiveService, cpu_s

PROBE_EVERY_S = 0.1
Timed = tuple[float, float]
"""A moment of the monotonic clock, and what was found there."""
_TICKS = os.sysconf("SC_CLK_TCK")
_OPEN = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stapo' AND xact_start IS NOT NULL")


class Timeline:
    """Watches a service from `start` to `stop`; `pids` are further processes of the load, by name."""

    def __init__(self, service: LiveService, pids: dict[str, int]) -> None:
        self._service = service
        self._pids = pids
        self._stopping = threading.Event()
        self._found: defaultdict[str, list[Timed]] = defaultdict(list)
        self._http = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        probes = {"wake": lambda: None, "loop": self._ask_loop, "database": self._ask_database}
        self._threads = [
            *(threading.Thread(target=self._probe, args=each, daemon=True) for each in probes.items()),
            threading.Thread(target=self._account, daemon=True),
        ]

    def start(self) -> None:
        """Begins to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends it; what was found is kept."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._http.close()

    def rows(
        self, started: float, latencies: Iterable[tuple[float, float]], lags: Iterable[tuple[float, float]]
    ) -> str:
        """A table, a line per second from `started`; a request counts in the second in which it was due."""
        seconds: dict[str, dict[int, list[float]]] = {}
        for name, pairs in {**self._found, "answered": latencies, "sent late": lags}.items():
            seconds[name] = defaultdict(list)
            for moment, value in pairs:
                seconds[name][int(moment - started)].append(value)
        last = max(seconds["answered"], default=-1)
        lines = [f"{'second':>6}{'requests':>9}" + "".join(f"{name:>12}" for name in _COLUMNS)]
        for second in range(last + 1):
            told = [f"{second:>6}{len(seconds['answered'][second]):>9}"]
            for name, factor, form in _COLUMNS.values():
                values = seconds.get(name, {}).get(second)
                told.append(f"{factor * max(values):>12{form}}" if values else f"{'':>12}")
            lines.append("".join(told))
        return "\n".join(lines)

    def _probe(self, name: str, ask: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            self._stopping.wait(PROBE_EVERY_S)
            woken = time.monotonic()
            ask()
            took = time.monotonic() - woken if name != "wake" else woken - began - PROBE_EVERY_S
            self._found[name].append((woken, took))

    def _ask_loop(self) -> None:
        self._http.request("GET", "/healthz")
        self._http.getresponse().read()

    def _ask_database(self) -> None:
        with self._service.database.connection() as connection:
            self._found["open"].append((time.monotonic(), float(connection.execute(_OPEN).scalar_one() - 1)))

    def _account(self) -> None:
        """Cores used, over each second: by the API, by Postgres, and by whoever has no part in this."""
        before = self._used()
        while not self._stopping.wait(1.0):
            now = self._used()
            elapsed = now["time"] - before["time"]
            for name in ("API", "Postgres", "others"):
                self._found[name].append((before["time"], (now[name] - before[name]) / elapsed))
            before = now

    def _used(self) -> dict[str, float]:
        ours = self._service.cpu_s()
        busy = sum(ours.values()) + sum(cpu_s([pid]) for pid in self._pids.values()) + time.process_time()
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return {"time": time.monotonic(), **ours, "others": (sum(fields) - fields[3] - fields[4]) / _TICKS - busy}


_COLUMNS = {
    "slowest ms": ("answered", 1000.0, ".0f"),
    "sent late": ("sent late", 1000.0, ".0f"),
    "loop ms": ("loop", 1000.0, ".0f"),
    "asked PG ms": ("database", 1000.0, ".0f"),
    "woken late": ("wake", 1000.0, ".0f"),
    "open trans": ("open", 1.0, ".0f"),
    "CPU API": ("API", 1.0, ".2f"),
    "CPU PG": ("Postgres", 1.0, ".2f"),
    "CPU others": ("others", 1.0, ".2f"),
}
