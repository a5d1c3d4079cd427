"""The harness itself: a seed replays its faults, the network is as bad as it is told, the chain shows a mixed step."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from stapo_core.failpoints import PLACES
from tests.chaos.controls import GUARDS, noticed
from tests.chaos.faults import plan
from tests.chaos.nursery import Nursery
from tests.chaos.proxy import Proxy
from tests.chaos.site import ROOT
from tests.chaos.storm import Report
from tests.chaos.times import Times
from tests.chaos.trainer import follow, prompts_of


def test_a_seed_replays_its_faults_and_another_does_not() -> None:
    assert plan(210, seed=4) == plan(210, seed=4)
    assert plan(210, seed=4) != plan(210, seed=5)


def test_a_round_comes_by_every_place_and_from_every_side() -> None:
    counts = Counter(fault.phase for fault in plan(210, seed=1))
    assert counts.total() >= 200
    assert counts.keys() > set(PLACES)
    assert {"worker", "trainer", "both", "postgres", "valkey", "network", "clock", "disk"} < counts.keys()


def test_a_release_has_enough_of_each() -> None:
    counts = Counter(fault.phase for fault in plan(1000, seed=1, per_phase=25))
    assert counts.total() >= 1000
    assert min(counts.values()) >= 25


def test_a_phase_that_was_struck_less_often_than_planned_is_told() -> None:
    report = Report(1, Counter(disk=2, clock=1, network=1), Counter(disk=1, clock=1))
    assert report.missed == ["disk: 1 of 2 faults were done", "network: 0 of 1 faults were done"]


def test_what_came_late_or_never_is_a_breach_and_loading_is_granted() -> None:
    name, times = "trainer killed until the next begins", Times()
    times.take(name, "job-1", [112.0], since=100.0, loading_s=3.0)
    assert (times.samples[name], times.breaches) == ([12.0], [])
    times.take(name, "job-2", [112.0], since=100.0, loading_s=1.0)
    times.take(name, "job-3", [], since=100.0)
    assert times.breaches == [f"{name}: 12.0 s, of which 1.0 s were loading", f"{name}: job-3 never came so far"]


def test_a_clock_jumps_an_hour_forwards_and_then_backwards() -> None:
    code = (
        "import os, signal, time; from datetime import datetime; from tests.chaos.clock import Moved, let_jump\n"
        "let_jump()\n"
        "for _ in range(2):\n"
        "    os.kill(os.getpid(), signal.SIGUSR2)\n"
        "    right = datetime.now().timestamp()\n"
        "    print(round((time.time() - right) / 60), round((Moved.now().timestamp() - right) / 60))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "60 60\n-60 -60\n"


@pytest.mark.parametrize("guard", GUARDS)
def test_a_job_that_only_ended_badly_is_no_sign_of_a_missing_guard(guard: str) -> None:
    assert noticed(guard, ["ftjob-1: still running at step 3, attempt 9", "ftjob-1: failed: None"]) == []


def test_a_step_of_another_lineage_does_not_follow() -> None:
    assert follow(1, [0, 1], salt=5) == follow(1, [0, 1], salt=5)
    assert len({follow(value, [0, 1], salt) for value in (1, 2) for salt in (5, 6)}) == 4
    assert follow(1, [0, 1], salt=5) < 2**53  # a float holds it


def test_prompts_come_once_each_before_any_comes_again() -> None:
    steps = [prompts_of(step, num_prompts=2, num_rows=8) for step in range(1, 6)]
    assert steps == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1]]


class Echo(socketserver.StreamRequestHandler):
    """Sends back each line."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "echo"), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with ThreadPoolExecutor(1) as thread:  # a browser's driver may keep a loop of its own running in this one
            proxy = thread.submit(Proxy, tmp_path / "echo").result()
        yield proxy
        proxy.close()
        server.shutdown()


def test_what_is_held_back_arrives_when_the_network_is_whole_again(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=1.0) as connection:
        connection.sendall(b"one\n")
        assert connection.recv(9) == b"one\n"
        proxy.mode = "hold"
        connection.sendall(b"two\n")
        with pytest.raises(TimeoutError):
            connection.recv(9)
        proxy.mode = "pass"
        assert connection.recv(9) == b"two\n"


def test_a_reset_ends_a_connection_and_the_next_one_works(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0) as connection:
        connection.sendall(b"one\n")
        assert connection.recv(9) == b"one\n"
        assert proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(9)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0) as connection:
        connection.sendall(b"two\n")
        assert connection.recv(9) == b"two\n"


def test_a_reset_without_a_connection_is_none(proxy: Proxy) -> None:
    assert not proxy.reset()


def test_an_end_amid_connections_is_no_error(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    proxy.mode = "hold"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10.0) as connection:
        connection.sendall(b"one\n")
        time.sleep(0.2)
        proxy.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(9)
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_the_nursery_runs_what_it_is_told_to_and_the_harness_sees_its_end(tmp_path: Path) -> None:
    nursery = Nursery(ROOT, os.environ, tmp_path / "nursery.log")
    newborn = nursery.bear(["--version"], {}, tmp_path / "newborn.log")
    newborn.wait()
    assert newborn.poll() == 0
    assert metadata.version("celery") in (tmp_path / "newborn.log").read_text()
    nursery.close()
