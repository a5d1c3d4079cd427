"""Large and interrupted downloads, by the platform's own client, from the API in a process of its own."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from api.store import artifacts, jobs
from benchmarks.live_service import METRIC_KEYS, fill_metrics
from client.http import Client
from tests.api.conftest import Service
from tests.conftest import find_free_port

GIB = 2**30
NUM_CUTS = 10
NUM_STEPS = 20_000
"""Of forty figures each, which take 80 MB when they are all in memory."""


@pytest.fixture
def api(service: Service) -> Iterator[tuple[str, int]]:
    """The API as a process: its address and its pid."""
    port = find_free_port()
    settings = service.settings
    env = os.environ | {
        "STAPO_HOME": str(settings.home),
        "STAPO_DATABASE_URL": settings.database_url,
        "STAPO_BROKER_URL": settings.broker_url,
    }
    command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning"], env=env)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            httpx2.get(f"{url}/healthz")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            break
    yield url, process.pid
    process.terminate()
    process.wait()


def add_checkpoint(service: Service, path: str, *, size: int, sha256: str) -> tuple[str, Path]:
    """A checkpoint of one file, which is still to be written; its id and the file."""
    job_id = service.create_job()["id"]
    target = artifacts.folder_path(service.settings.artifacts_dir, job_id, 1) / path
    target.parent.mkdir(parents=True)
    files = [{"path": path, "bytes": size, "sha256": sha256}]
    with service.database.transaction() as session:
        job = jobs.lock_job(session, "ours", job_id)
        return artifacts.add_checkpoint(session, job, step=1, final=True, files=files, metrics={}).id, target


def key_of(service: Service) -> str:
    return str(service.client.headers["authorization"]).removeprefix("Bearer ")


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def test_the_archive_of_two_gigabytes_is_streamed_in_little_memory(service: Service, api: tuple[str, int]) -> None:
    url, pid = api
    checkpoint_id, path = add_checkpoint(service, "model.safetensors", size=2 * GIB, sha256="0" * 64)
    with path.open("wb") as sparse:
        sparse.truncate(2 * GIB)
    address = f"{url}/v1/fine_tuning/checkpoints/{checkpoint_id}"
    with httpx2.Client(headers={"Authorization": f"Bearer {key_of(service)}"}, timeout=60.0) as client:
        assert client.get(address).status_code == 200
        before, most, received = rss_mb(pid), 0.0, 0
        with client.stream("GET", f"{address}/archive") as archive:
            for number, piece in enumerate(archive.iter_raw(2**20)):
                received += len(piece)
                if number % 32 == 0:
                    most = max(most, rss_mb(pid))
    assert received == 2 * GIB + 3 * 512
    assert most - before < 50.0


def test_the_table_of_a_long_run_is_streamed_in_little_memory(service: Service, api: tuple[str, int]) -> None:
    url, pid = api
    job_id = service.create_job()["id"]
    fill_metrics(service.database, job_id, NUM_STEPS)
    address = f"{url}/v1/fine_tuning/jobs/{job_id}/metrics.csv"
    with httpx2.Client(headers={"Authorization": f"Bearer {key_of(service)}"}, timeout=60.0) as client:
        assert client.get(address, params={"keys": METRIC_KEYS[0]}).status_code == 200
        before, most, lines = rss_mb(pid), 0.0, []
        with client.stream("GET", address) as table:
            for number, line in enumerate(table.iter_lines()):
                lines.append(line.split(",")[1])
                if number % 500 == 0:
                    most = max(most, rss_mb(pid))
    assert lines == ["step", *(str(step) for step in range(1, NUM_STEPS + 1))]
    assert most - before < 30.0


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, and cuts the first so many downloads of files after some bytes each."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, lengths: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.port, self.lengths = port, lengths
        self.num_cut = 0


class _Pass(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        request = self.request.recv(2**16)
        with socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            upstream.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            left = self.server.lengths.pop(0) if b"/files/" in request and self.server.lengths else None
            while piece := upstream.recv(2**16):
                if left is not None and len(piece) >= left:
                    self.request.sendall(piece[:left])
                    self.server.num_cut += 1
                    return
                self.request.sendall(piece)
                left = None if left is None else left - len(piece)


def test_a_download_that_is_cut_ten_times_ends_with_the_same_bytes(
    service: Service, api: tuple[str, int], tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    source = random.Random(seed)
    content = source.randbytes(8 * 2**20)
    digest = hashlib.sha256(content).hexdigest()
    checkpoint_id, path = add_checkpoint(service, "model.safetensors", size=len(content), sha256=digest)
    path.write_bytes(content)
    port = int(api[0].rpartition(":")[2])
    heads = 1000  # what stands before the first byte of the file is never enough for a whole cut
    lengths = [heads + source.randrange(len(content) // NUM_CUTS - heads) for _ in range(NUM_CUTS)]
    with CuttingProxy(port, lengths) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{proxy.server_address[1]}", key_of(service)) as client:
            folder = client.download_checkpoint(checkpoint_id, tmp_path / "model")
        proxy.shutdown()
    assert proxy.num_cut == NUM_CUTS, f"seed {seed}"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == digest, f"seed {seed}"
