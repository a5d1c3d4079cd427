"""Child processes that judge pairs, each comparison under a hard deadline.

Knows processes and pipes; what is judged lives in the child's module. A child that hangs is killed and replaced: what
is asked of foreign text can take for ever, and a timer inside the same interpreter cannot interrupt it.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stapo_core.graders.score import Pair, Score

_START_S = 120.0  # importing a library on a busy machine is no fault of the text


class ChildPool:
    """Children, started when first needed: one per core, at least two, so that one works while another is replaced,
    and at most eight.
    """

    def __init__(
        self,
        module: str,
        timeout_s: float,
        settings: Mapping[str, Any] | None = None,
        *,
        num_children: int | None = None,
    ) -> None:
        """`module` runs `child.serve`; `settings` reach it before the first pair."""
        self._module = module
        self._timeout_s = timeout_s
        self._settings = json.dumps(settings or {})
        self._num_children = num_children or max(2, min(8, os.cpu_count() or 1))
        self._children: list[_Child] = []
        self._judging = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Kills the children; a `judge` of another thread ends with what it has, and scores the rest 0."""
        self._is_closed = True
        for child in list(self._children):
            child.end()
        with self._judging:
            for child in self._children:
                child.kill()
            self._children.clear()

    def judge(self, pairs: Sequence[Pair]) -> dict[Pair, Score]:
        """One score per pair; the pairs are distinct."""
        with self._judging:
            return {pair: Score(0.0, "closed") for pair in pairs} | self._judge(pairs)

    def _judge(self, pairs: Sequence[Pair]) -> dict[Pair, Score]:
        self._children = [child for child in self._children if child.is_alive()]
        while len(self._children) < min(self._num_children, len(pairs)):
            self._children.append(self._start())
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.stdout, selectors.EVENT_READ, child)
            work = _Work(deque(pairs), selector)
            while len(work.scores) < len(pairs) and not self._is_closed:
                for child in [child for child in self._children if child.is_ready]:
                    if work.waiting:
                        child.ask(work.waiting.popleft(), self._timeout_s)
                deadline = min(child.deadline for child in self._children)
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    self._hear(key.data, work)
                for child in [child for child in self._children if child.deadline <= time.monotonic()]:
                    self._replace(child, "timeout", work)
        return work.scores

    def _hear(self, child: _Child, work: _Work) -> None:
        reply = child.read()
        if reply is None:
            return
        if "gone" in reply:
            self._replace(child, "crash", work)
        elif child.pair is not None:
            work.scores[child.pair] = Score(float(reply["score"]), reply["error"], child.seconds(), reply.get("note"))
            child.rest()

    def _replace(self, child: _Child, error: str, work: _Work) -> None:
        work.selector.unregister(child.stdout)
        self._children.remove(child)
        child.kill()
        if not child.was_ready:
            raise NotStarted(f"a grader's child could not start ({error}); its own words stand in the log above")
        if child.pair is not None:
            work.give_up(child.pair, error, child.seconds())
        fresh = self._start()
        self._children.append(fresh)
        work.selector.register(fresh.stdout, selectors.EVENT_READ, fresh)

    def _start(self) -> _Child:
        return _Child(self._module, self._settings)


class NotStarted(RuntimeError):
    """A child could not be started, or not in time: of the pairs nothing is said by that."""


@dataclass
class _Work:
    """What is still to be judged in one call, and what has been."""

    waiting: deque[Pair]
    selector: selectors.BaseSelector
    scores: dict[Pair, Score] = field(default_factory=dict)
    crashed: set[Pair] = field(default_factory=set)

    def give_up(self, pair: Pair, error: str, seconds: float) -> None:
        """Scores a pair 0; one whose child died gets a second child, since the pair may not be to blame."""
        if error == "crash" and pair not in self.crashed:
            self.crashed.add(pair)
            self.waiting.append(pair)
        else:
            self.scores[pair] = Score(0.0, error, seconds)


class _Child:
    """One process that judges one pair at a time, in JSON lines over its pipes."""

    def __init__(self, module: str, settings: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own modules alone
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        assert self._process.stdin is not None  # noqa: S101  # pipes were asked for
        assert self._process.stdout is not None  # noqa: S101
        self._stdin, self.stdout = self._process.stdin, self._process.stdout
        self._unread = b""
        self.was_ready = self.is_ready = False
        self.pair: Pair | None = None
        self._asked_at = time.monotonic()
        self.deadline = self._asked_at + _START_S
        self._write(settings)

    def ask(self, pair: Pair, timeout_s: float) -> None:
        """Hands over a pair; a broken pipe shows as the end of its output."""
        self._asked_at = time.monotonic()
        self.pair, self.is_ready, self.deadline = pair, False, self._asked_at + timeout_s
        self._write(json.dumps({"text": pair.text, "reference": pair.reference}))

    def read(self) -> dict[str, Any] | None:
        """A whole reply, or None while it is not whole; `gone` in it when the child has ended."""
        piece = os.read(self.stdout.fileno(), 65536)
        if not piece:
            return {"gone": True}
        self._unread += piece
        if b"\n" not in self._unread:
            return None
        line, self._unread = self._unread.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        if "ready" in reply:
            self.was_ready = True
            self.rest()
            return None
        return reply

    def rest(self) -> None:
        """It waits for the next pair, however long."""
        self.pair, self.is_ready, self.deadline = None, True, float("inf")

    def seconds(self) -> float:
        """How long ago it was asked."""
        return time.monotonic() - self._asked_at

    def end(self) -> None:
        """Sends the signal that ends the process, whatever it does; its pipes stay open for who reads them."""
        self._process.kill()

    def kill(self) -> None:
        """Ends the process and closes the pipes."""
        self.end()
        self._process.wait()
        self.stdout.close()
        with suppress(BrokenPipeError):  # a question was still on its way
            self._stdin.close()

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def _write(self, line: str) -> None:
        with suppress(BrokenPipeError):
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()


def _environment() -> dict[str, str]:
    """Ours without the service's own settings: the API runs graders too, and a child reads foreign text."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("STAPO_")}
    # The fixed hash seed has reasoning-gym, which iterates over sets, make the same problem in every process.
    return passed | {"STAPO_PARENT_PID": str(os.getpid()), "PYTHONHASHSEED": "0"}
