"""Readers that are cut off, and readers that are slow: each sees every row once, in order, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
import pytest

from api import streams
from api.settings import Settings
from tests.api.conftest import Service
from tests.api.streams import headers_of
from tests.api.writer import Writer
from tests.conftest import find_free_port

NUM_READERS = 1000
NUM_STEPS = 40
NUM_WIDE = 260
"""Steps of some 25 kB: more than what the kernel holds for a reader that does not read."""
LIVE_S = 8.0
DEADLINE_S = 240.0


@pytest.fixture
def writer(service: Service) -> Writer:
    return Writer(service.database, service.create_job()["id"])


@dataclass
class Reader:
    """Reads a job's metrics through cuts, at each return from either process."""

    path: str
    key: str
    ports: list[int]
    chance: random.Random
    seen: list[int] = field(default_factory=list)
    num_cuts: int = 0

    async def read_all(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, LIVE_S / 2))
        while not await self._read_some(cut_after_s=self.chance.expovariate(2.5 / LIVE_S)):
            self.num_cuts += 1

    async def _read_some(self, *, cut_after_s: float) -> bool:
        """One connection, cut in the middle of whatever is under way; whether the stream has ended."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.chance.choice(self.ports))
        try:
            lines = [f"GET {self.path} HTTP/1.0", f"Authorization: Bearer {self.key}"]
            lines += [f"Last-Event-ID: {self.seen[-1]}"] if self.seen else []
            writer.write("\r\n".join([*lines, "", ""]).encode())
            async with asyncio.timeout(cut_after_s):
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 204 " in head:
                    return True
                assert b" 200 " in head, head
                while True:
                    if self._take(await reader.readuntil(b"\n\n")):
                        return True
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return False
        finally:
            writer.transport.abort()

    def _take(self, block: bytes) -> bool:
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if ": " in line)
        if fields.get("event") == "metrics":
            self.seen.append(int(fields["id"]))
        return fields.get("event") == "end"


@pytest.fixture
def processes(settings: Settings) -> Iterator[list[int]]:
    """Two API processes; their ports."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))  # a socket per reader, at both ends
    env = os.environ | {
        "STAPO_HOME": str(settings.home),
        "STAPO_DATABASE_URL": settings.database_url,
        "STAPO_BROKER_URL": settings.broker_url,
        "STAPO_STREAM_POLL_S": "0.2",
        "STAPO_RATE_LIMIT": "",
    }
    ports = [find_free_port(), find_free_port()]
    command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--log-level", "error"]
    command += ["--timeout-graceful-shutdown", "1", "--backlog", "4096", "--port"]
    running = [subprocess.Popen([*command, str(port)], env=env) for port in ports]
    for port in ports:
        wait_until_up(port)
    yield ports
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def wait_until_up(port: int) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/healthz").is_success:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers on port {port}")


def test_a_thousand_readers_cut_at_random_see_each_step_once_and_in_order(
    service: Service, writer: Writer, processes: list[int]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    path = f"/v1/fine_tuning/jobs/{writer.job_id}/metrics/stream"
    key = headers_of(service)["Authorization"].removeprefix("Bearer ")
    readers = [Reader(path, key, processes, random.Random(chance.random())) for _ in range(NUM_READERS)]

    def live() -> None:
        for step in range(1, NUM_STEPS + 1):
            writer.step(step)
            time.sleep(LIVE_S / NUM_STEPS)
        writer.finish()

    async def read() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(reader.read_all() for reader in readers))

    living = threading.Thread(target=live)
    living.start()
    with ThreadPoolExecutor(1) as thread:  # a browser's driver may keep a loop of its own running in this one
        thread.submit(asyncio.run, read()).result()
    living.join()
    points = service.client.get(f"/v1/fine_tuning/jobs/{writer.job_id}/metrics").json()["data"]
    expected = [point["seq"] for point in points]
    assert len(expected) == NUM_STEPS
    wrong = [reader.seen for reader in readers if reader.seen != expected]
    assert wrong == []
    assert sum(reader.num_cuts for reader in readers) > NUM_READERS  # so there was something to survive


def test_a_slow_reader_is_told_resync_holds_nobody_up_and_misses_nothing(
    service: Service, writer: Writer, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BUFFER", 20)
    wide = {f"area/name-{number}": 1.0 for number in range(1000)}
    url = urlsplit(server)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((url.hostname, url.port))
        path = f"/v1/fine_tuning/jobs/{writer.job_id}/metrics/stream"
        slow.sendall(f"GET {path} HTTP/1.0\r\nAuthorization: {headers_of(service)['Authorization']}\r\n\r\n".encode())
        told = slow.recv(1)
        for first in range(1, NUM_WIDE, 10):
            for step in range(first, first + 10):
                writer.step(step, **wide)
            time.sleep(0.06)  # more than a look of the server's at the rows
        assert list(quick_steps(service, server, writer)) == list(range(1, NUM_WIDE + 1))
        writer.finish()
        slow.settimeout(30.0)
        while piece := slow.recv(65536):
            told += piece
    events = [block for block in told.decode().split("\n\n") if "event: " in block]
    names = [block.partition("event: ")[2].partition("\n")[0] for block in events]
    steps = [
        json.loads(block.partition("data: ")[2].partition("\n")[0])["step"]
        for block in events
        if "event: metrics" in block
    ]
    assert steps == list(range(1, NUM_WIDE + 1))
    assert "resync" in names
    assert names[-1] == "end"


def quick_steps(service: Service, server: str, writer: Writer) -> Iterator[int]:
    """What another reader is sent meanwhile."""
    url = f"{server}/v1/fine_tuning/jobs/{writer.job_id}/metrics/stream"
    with httpx2.stream("GET", url, headers=headers_of(service), timeout=20.0) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and '"values"' in line:
                step = json.loads(line.removeprefix("data: "))["step"]
                yield step
                if step == NUM_WIDE:
                    return
