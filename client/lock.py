"""A lock on a file that the kernel lets go when its last holder dies, however it died."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from client.process import StopRequested, never


class Locked(Exception):
    """Somebody else holds the lock; `pid` is who wrote their number into it, if anybody did."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid if pid else 'unknown'}")
        self.path = path
        self.pid = pid


class FileLock:
    """An exclusive flock. A child that inherits `fd` holds it too, until it ends."""

    def __init__(self, path: Path, *, wait_s: float = 0.0, is_stopping: Callable[[], bool] = never) -> None:
        """Takes the lock within `wait_s` seconds or raises Locked; raises StopRequested as soon as told to."""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if is_stopping() or time.monotonic() >= deadline:
                    pid = self._read_pid()
                    os.close(self.fd)
                    raise (StopRequested if is_stopping() else Locked(path, pid)) from None
                time.sleep(0.05)
            else:
                return

    def write_pid(self, pid: int) -> None:
        """Names the holder for those who find the lock taken."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{pid}\n".encode(), 0)

    def release(self) -> None:
        """Lets our own hold go; children that inherited it keep theirs."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _read_pid(self) -> int | None:
        text = os.pread(self.fd, 32, 0).strip()
        return int(text) if text.isdigit() else None
