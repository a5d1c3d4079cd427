"""A model held warm in a process of its own that answers prompts as it draws them. Knows no database.

It leaves when its standard input closes, so it never outlives the worker.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.process import child_environment

LOAD_S = 120.0
CHECK_S = 0.5
"""How often somebody is asked whether the answer is still wanted."""
STOP_S = 10.0
DEAD = "the process that holds the model has died"


class ReplyError(Exception):
    """The model cannot answer; the text says why."""


class Withdrawn(Exception):
    """Nobody waits for the answer any more; the model is as good as before."""


class WarmModel:
    """One model, loaded once. `on_wait` is called every CHECK_S while it loads, and may raise to give up."""

    def __init__(self, folder: Path, *, on_wait: Callable[[], None] = lambda: None) -> None:
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
            self._load(on_wait)
        except BaseException:
            self.close()
            raise

    def ask(
        self, ask: dict[str, Any], *, tell: Callable[[list[Any]], None], is_wanted: Callable[[], bool], silence_s: float
    ) -> dict[str, Any]:
        """The reply to one ask, while `tell` gets the pieces as they are drawn.

        Raises Withdrawn once `is_wanted` denies (it is asked every CHECK_S), and ReplyError; a process that died or
        said nothing for `silence_s` is of no more use then.
        """
        self._write(ask)
        heard_at = checked_at = time.monotonic()
        while True:
            said = self._read(time.monotonic() + CHECK_S)
            now = time.monotonic()
            if said is not None and said["id"] == ask["id"]:
                heard_at = now
                if "reply" in said:
                    return said["reply"]  # type: ignore[no-any-return]
                if "error" in said:
                    raise ReplyError(said["error"])
                tell(said["pieces"])
            if now - heard_at > silence_s:
                self._process.kill()
                raise ReplyError("the model took too long")
            if now - checked_at > CHECK_S:
                checked_at = now
                if not is_wanted():
                    self._withdraw(ask["id"])

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return self._process.pid

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

    def _load(self, on_wait: Callable[[], None]) -> None:
        deadline = time.monotonic() + LOAD_S
        while (said := self._read(time.monotonic() + CHECK_S)) is None:
            on_wait()
            if time.monotonic() > deadline:
                raise ReplyError("loading the model took too long")
        if "error" in said:
            raise ReplyError(said["error"])

    def _withdraw(self, ask_id: str) -> None:
        """Stops the drawing; a process that does not listen is ended."""
        self._write({"cancel": ask_id})
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            said = self._read(deadline)
            if said is not None and said["id"] == ask_id and "pieces" not in said:
                raise Withdrawn
        self._process.kill()
        raise Withdrawn

    def _write(self, said: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:  # ValueError: it was closed
            raise ReplyError(DEAD) from error

    def _read(self, deadline: float) -> dict[str, Any] | None:
        """The next thing that the process says; None when it says nothing in time."""
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        while b"\n" not in self._unread:
            try:
                descriptor = self._process.stdout.fileno()
                ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
                piece = os.read(descriptor, 65536) if ready else b""
            except (OSError, ValueError) as error:  # it was closed
                raise ReplyError(DEAD) from error
            if not ready:
                return None
            if not piece:
                raise ReplyError(DEAD)
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        said: dict[str, Any] = json.loads(line)
        return said
