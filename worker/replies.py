"""A model held warm in a process of its own that answers prompts. Knows no database.

It leaves when its standard input closes, so it never outlives the worker.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from worker.process import child_environment

LOAD_S = 120.0


class ReplyError(Exception):
    """The model cannot answer; the text says why."""


class WarmModel:
    """One model, loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unread = b""
        self._process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            [sys.executable, "-m", "stapo_core.replies", str(folder)],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._read(time.monotonic() + LOAD_S)
        except ReplyError:
            self.close()
            raise

    def ask(self, ask: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """The reply to one ask. Raises ReplyError; the process is then of no more use, unless it said so itself."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(ask).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ReplyError("the process that holds the model has died") from error
        return self._read(time.monotonic() + timeout_s)

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _read(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise ReplyError("the model took too long")
            piece = os.read(descriptor, 65536)
            if not piece:
                raise ReplyError("the process that holds the model has died")
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise ReplyError(said["error"])
        return said
