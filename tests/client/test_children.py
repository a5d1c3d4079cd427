"""A supervisor's children come back when they die, give up when they will not live, and go when told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.children import Child, Children
from client.process import Command, StartError, spawn

ENV = {"PATH": "/usr/bin:/bin"}


class Family:
    """Children under test, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.children = Children(self.said.append)
        self._folder = folder

    def add(self, script: str, *, grace_s: float = 5.0, is_store: bool = False) -> Child:
        log = self._folder / "child.log"
        command = Command(("/bin/sh", "-c", script), ENV, log, folder=self._folder)
        child = Child("sleeper", lambda: spawn(command), log, grace_s, is_store=is_store)
        self.children.add(child)
        return child

    def revive_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not is_done():
            assert time.monotonic() < deadline, self.said
            self.children.revive()
            time.sleep(0.02)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    made = Family(tmp_path)
    yield made
    made.children.stop(lambda: True)


def pid(child: Child) -> int:
    assert child.process is not None
    return child.process.pid


def test_a_killed_child_comes_back(family: Family) -> None:
    child = family.add("exec sleep 60")
    first = pid(child)
    os.kill(first, signal.SIGKILL)
    family.revive_until(lambda: child.is_running and pid(child) != first)
    assert "starts again in 0.5 s" in family.said[0]


def test_a_child_that_will_not_live_is_given_up_with_the_end_of_its_log(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.children._FIRST_WAIT_S", 0.01)
    family.add("echo no such luck; exit 3")
    with pytest.raises(StartError, match=r"6 times in a row.*\n.*\n(.*\n)*no such luck"):
        family.revive_until(lambda: False)


def test_the_wait_before_a_restart_doubles(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.children._FIRST_WAIT_S", 0.1)
    family.add("exit 3")
    with pytest.raises(StartError):
        family.revive_until(lambda: False)
    waits = [line.partition(" again in ")[2].partition(" s")[0] for line in family.said if "ended" in line]
    assert waits == ["0.1", "0.2", "0.4", "0.8", "1.6"]


def test_a_child_that_ended_while_starting_is_an_error_with_its_log(family: Family) -> None:
    child = family.add("echo bad luck; exit 1")
    assert child.process is not None
    child.process.wait()
    with pytest.raises(StartError, match="bad luck"):
        family.children.check_alive()


def test_a_child_that_ignores_sigterm_is_killed_after_its_time(family: Family) -> None:
    child = family.add("trap '' TERM; echo ready; while :; do sleep 0.1; done", grace_s=0.5)
    while b"ready" not in child.log.read_bytes():
        time.sleep(0.02)
    began = time.monotonic()
    family.children.stop(lambda: False)
    assert not child.is_running
    assert 0.5 <= time.monotonic() - began < 3


def test_guests_stop_together_and_before_the_stores(family: Family, tmp_path: Path) -> None:
    slow = 'trap \'sleep 0.3; date +%s%N > "{}"; exit 0\' TERM; touch "{}.ready"; while :; do sleep 0.05; done'
    names = ["store", "first", "second"]
    for name in names:
        family.add(slow.format(tmp_path / name, tmp_path / name), is_store=name == "store")
    while not all((tmp_path / f"{name}.ready").exists() for name in names):
        time.sleep(0.02)
    family.children.stop(lambda: False)
    ended = {name: int((tmp_path / name).read_text()) / 1e9 for name in names}
    assert abs(ended["first"] - ended["second"]) < 0.25
    assert ended["store"] - max(ended["first"], ended["second"]) > 0.25


def test_a_child_dies_with_the_process_that_spawned_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from client.process import Command, spawn\n"
        "child = spawn(Command(('/bin/sleep', '60'), {}, Path(sys.argv[1])))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(Command(("/no/such/program",), ENV, log))
    assert process.wait() == 127
    assert "/no/such/program could not be started" in log.read_text()
