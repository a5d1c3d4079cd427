"""Our side of the cage: hands a program in, bounds what comes out, and tells how it ended.

What comes out is foreign text. The fork server is ours; it is replaced when it dies.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from stapo_core.sandbox import landlock, plain, seccomp
from stapo_core.sandbox.zygote import STOP

MAX_SOURCE_BYTES = 256_000
MAX_TIMEOUT_S = 120.0
MAX_OUTPUT_BYTES = 2**20
"""Of what is printed, and of what is answered."""

Ending: TypeAlias = Literal["by_itself", "timeout", "threads", "disk", "output"]

_FIRST_UID, _NUM_UIDS = 61184, 4336  # the range that systemd hands out to services for their lifetime
_START_S, _GRACE_S = 60.0, 15.0
_ROOM = 65536
_UNUSUAL = re.compile(r"[^A-Za-z0-9_]")
_BOOT = (
    "import sys; sys.path.append(sys.argv.pop()); from stapo_core.sandbox import zygote; sys.path.pop(); zygote.main()"
)


class Obstacle(Exception):
    """This machine offers no sandbox; the text says why."""


class Broken(Exception):
    """The fork server died or fell silent; the program may not be to blame."""


@dataclass(frozen=True, slots=True)
class Program:
    """Source to run, with what it reads; then `bound` names are set and `expressions` evaluated, one by one."""

    source: str
    timeout_s: float
    stdin: str = ""
    name: str = "program"
    bound: Mapping[str, Any] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What an expression gave: a plain value, or the name of what was raised."""

    value: Any = None
    raised: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. `code` is its exit status, minus the signal's number where one ended it."""

    ended: Ending
    code: int
    stdout: str
    answers: tuple[Answer, ...]
    """One per expression that was evaluated; empty where the source itself raised."""
    raised: str | None
    """What the source itself raised."""
    cpu_s: float
    memory_bytes: int


def find_obstacle() -> str | None:
    """Why programs cannot be caged on this machine; None after one was."""
    if sys.platform != "linux":
        return "the sandbox is made by the Linux kernel, and this is another system"
    if landlock.version() == 0:
        return "the kernel offers no Landlock; it needs Linux 5.13 or later with landlock among its security modules"
    if obstacle := seccomp.find_obstacle():
        return obstacle
    try:
        Sandbox().close()
    except Obstacle as obstacle_met:
        return str(obstacle_met)
    return None


class Sandbox:
    """Runs one program at a time, each in a fresh process. `close` ends what was started and removes the folder."""

    def __init__(self) -> None:
        """Starts the fork server and tries the cage. Raises Obstacle."""
        self._folder = tempfile.mkdtemp(prefix="stapo-sandbox-")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        user = "-"
        if os.geteuid() == 0:
            uid = _FIRST_UID + os.getpid() % _NUM_UIDS
            user = f"{uid}:{uid}"
            os.chown(self._folder, uid, uid)
        with theirs:
            arguments = (self._folder, user, str(Path(__file__).parents[2]))
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # it outlives a kill of our group by the moment that tidying up takes
            )
        try:
            self._try_out()
        except BaseException:
            self.close()
            raise

    def run(self, program: Program) -> Outcome:
        """Runs it to its end, or to the first limit that it meets. Raises Broken."""
        with _Exchange(program) as exchange:
            message = {"timeout_s": program.timeout_s, "cpu_s": max(1, round(program.timeout_s + 0.5))}
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], exchange.theirs)
                told = exchange.attend(self._control)
            except OSError as error:  # one that dies with a message unread resets the connection
                raise Broken(str(error)) from error
        return exchange.outcome(told)

    def close(self) -> None:
        """Ends whatever runs, and leaves no folder."""
        self._control.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _try_out(self) -> None:
        self._control.settimeout(_START_S)
        try:
            told = self._control.recv(_ROOM)
        except TimeoutError as error:
            raise Obstacle(f"the sandbox did not start within {_START_S:g} s") from error
        if not told:
            raise Obstacle("the sandbox's fork server ended while it started; its own words stand in the log above")
        if obstacle := json.loads(told)["obstacle"]:
            raise Obstacle(f"the sandbox cannot give up its rights: {obstacle}")
        try:
            tried = self.run(Program("", timeout_s=_START_S, expressions=("6 * 7",)))
        except Broken as error:
            raise Obstacle(f"the sandbox does not work: {error}") from error
        if [answer.value for answer in tried.answers] != [42]:
            raise Obstacle(f"the sandbox does not work: a trial program ended with status {tried.code}")


class _Exchange:
    """The pipes of one program: what goes in is written as it is read, what comes out is kept up to a bound."""

    def __init__(self, program: Program) -> None:
        question = {
            "source": program.source,
            "name": program.name,
            "bound": {name: plain.encode(value) for name, value in program.bound.items()},
            "expressions": program.expressions,
        }
        self._limit_s = program.timeout_s + _GRACE_S
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        asked, to_asked = os.pipe()
        from_answers, answers = os.pipe()
        self.theirs = [stdin, stdout, os.open(os.devnull, os.O_WRONLY), asked, answers]
        self._unsent = {
            to_stdin: memoryview(program.stdin.encode("utf-8", "replace")),
            to_asked: memoryview(json.dumps(question).encode()),
        }
        self._heard = {from_stdout: bytearray(), from_answers: bytearray()}
        self._open = {*self.theirs, *self._unsent, *self._heard}
        self._is_too_much = False

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def attend(self, control: socket.socket) -> dict[str, Any]:
        """Serves the pipes until the fork server tells of the end."""
        self._close(*self.theirs)
        for descriptor in (*self._unsent, *self._heard):
            os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            for descriptor in self._unsent:
                selector.register(descriptor, selectors.EVENT_WRITE)
            for descriptor in self._heard:
                selector.register(descriptor, selectors.EVENT_READ)
            told = self._serve(selector, control)
            for descriptor in self._heard:
                while descriptor in self._open and not self._is_too_much:  # what still lies in the pipe
                    self._hear(selector, descriptor, control)
        return told

    def outcome(self, told: dict[str, Any]) -> Outcome:
        """All that was heard, read."""
        stdout, answered = self._heard.values()
        raised, answers = _read(bytes(answered))
        return Outcome(
            ended="output" if self._is_too_much else told["ended"],
            code=told["code"],
            stdout=stdout.decode("utf-8", "replace"),
            answers=answers,
            raised=raised,
            cpu_s=told["cpu_s"],
            memory_bytes=told["memory_bytes"],
        )

    def _serve(self, selector: selectors.BaseSelector, control: socket.socket) -> dict[str, Any]:
        deadline = time.monotonic() + self._limit_s
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is control:
                    told = control.recv(_ROOM)
                    if not told:
                        raise Broken("the fork server died")
                    return dict(json.loads(told))
                if key.fd in self._unsent:
                    self._send(selector, key.fd)
                else:
                    self._hear(selector, key.fd, control)
        raise Broken("the fork server fell silent")

    def _send(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        try:
            self._unsent[descriptor] = self._unsent[descriptor][os.write(descriptor, self._unsent[descriptor]) :]
        except BrokenPipeError:  # not read to the end
            self._unsent[descriptor] = memoryview(b"")
        if not self._unsent[descriptor]:
            selector.unregister(descriptor)
            self._close(descriptor)

    def _hear(self, selector: selectors.BaseSelector, descriptor: int, control: socket.socket) -> None:
        piece = os.read(descriptor, _ROOM)
        self._heard[descriptor] += piece
        is_too_much = len(self._heard[descriptor]) > MAX_OUTPUT_BYTES
        if not piece or is_too_much:
            selector.unregister(descriptor)
            self._close(descriptor)
        if is_too_much and not self._is_too_much:
            self._is_too_much = True
            control.send(STOP)

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._open.remove(descriptor)
            os.close(descriptor)


def _read(answered: bytes) -> tuple[str | None, tuple[Answer, ...]]:
    """What the source raised, and the answers up to the first that is none."""
    lines = answered.split(b"\n")[:-1]
    answers = [_read_answer(line) for line in lines]
    if not answers:
        return "no_answer", ()
    return answers[0].raised, tuple(answers[1:])


def _read_answer(line: bytes) -> Answer:
    try:
        said = json.loads(line)
        if isinstance(raised := said.get("raised"), str):
            return Answer(raised=_UNUSUAL.sub("", raised)[:40] or "nameless")
        return Answer(plain.decode(said.get("value")))
    except (ValueError, AttributeError, RecursionError):
        return Answer(raised="unreadable")


def _environment() -> dict[str, str]:
    """Nothing, but for where the interpreter's own shared library may lie."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
