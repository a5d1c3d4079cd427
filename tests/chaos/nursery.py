"""Workers born ready: a process that has read what a worker needs, and forks one whenever it is told to.

To read Celery, SQLAlchemy and us takes a worker seconds of a core, and a storm kills workers by the hundred. Nothing
that is read here opens a file, a socket or a thread: all that is a worker's own begins after the fork.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.process import Command, kill_group, spawn

NEEDED = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "kombu.transport.redis",
    "sqlalchemy.dialects.postgresql.psycopg",
    "worker.tasks",
)
_PR_SET_PDEATHSIG = 1


class Newborn:
    """A worker, as `subprocess.Popen` would show it; its exit code is not known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._end: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._end = None

    def poll(self) -> int | None:
        """None while it lives."""
        return None if self._is_alive(wait_s=0.0) else 0

    def wait(self) -> int:
        """Returns when it is gone."""
        self._is_alive(wait_s=None)
        return 0

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _is_alive(self, *, wait_s: float | None) -> bool:
        if self._end is not None and select.select([self._end], [], [], wait_s)[0]:
            os.close(self._end)
            self._end = None
        return self._end is not None


class Nursery:
    """The process that forks. It goes with the harness, and its workers with it."""

    def __init__(self, folder: Path, env: Mapping[str, str], log: Path) -> None:
        self._door, theirs = socket.socketpair()
        arguments = (sys.executable, "-m", "tests.chaos.nursery", str(theirs.fileno()))
        self._process = spawn(Command(arguments, env, log, folder=folder), pass_fds=[theirs.fileno()])
        theirs.close()
        self._answers = self._door.makefile("r")

    def bear(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> Newborn:
        """A new process that runs `celery` with the arguments."""
        self._door.sendall(json.dumps([list(arguments), dict(env), str(log)]).encode() + b"\n")
        return Newborn(int(self._answers.readline()))

    def close(self) -> None:
        """Ends it, and every worker that is left."""
        kill_group(self._process)
        self._process.wait()
        self._answers.close()
        self._door.close()


def main() -> None:
    """Reads orders until the harness is gone; each is answered by the process id of a worker."""
    for name in NEEDED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    with socket.socket(fileno=int(sys.argv[1])) as door, door.makefile("r") as orders:
        for order in orders:
            parent, pid = os.getpid(), os.fork()
            if not pid:
                door.detach()
                os.close(int(sys.argv[1]))
                _live(parent, *json.loads(order))
            door.sendall(f"{pid}\n".encode())


def _live(parent: int, arguments: list[str], env: dict[str, str], log: str) -> None:
    """Becomes what `python -m celery` would have been. Never returns."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["celery", *arguments]
    from celery.__main__ import main as celery

    try:
        celery()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)  # not back into the nursery


if __name__ == "__main__":
    main()
