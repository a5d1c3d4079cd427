"""A child process of ours: in its own session, gone when its parent is, its output in a log file.

Spawn from the main thread alone: the kernel sends the death signal when the spawning *thread* ends.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SHIM = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Account:
    """The user a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run, and how: `death_signal` is what the kernel sends it when the parent dies."""

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    folder: Path = Path("/")
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL


class StartError(Exception):
    """Something of ours did not start; the text is a sentence for the user, with the log's tail where there is one."""


class StopRequested(Exception):
    """The user asked us to stop while something was still starting."""


def never() -> bool:
    """For a caller that cannot be asked to stop."""
    return False


def nobody() -> Account:
    """The unprivileged account that servers run as under root."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise StartError(
            "Under root the servers run as the user `nobody`, and this machine has no such user."
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def spawn(command: Command, *, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Starts the command in a session of its own; file descriptors in `pass_fds` stay open in it."""
    account = command.account
    user = f"{account.uid}:{account.gid}" if account else "-"
    shim = [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(int(command.death_signal)), user]
    command.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  # our own programs, no shell
            [*shim, str(command.folder), *command.arguments],
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )


def run_to_end(command: Command, *, is_stopping: Callable[[], bool], pass_fds: Sequence[int] = ()) -> int:
    """Runs a program that ends by itself and gives its exit code; kills it and raises StopRequested when told to."""
    process = spawn(command, pass_fds=pass_fds)
    while process.poll() is None:
        if is_stopping():
            kill_group(process)
            process.wait()
            raise StopRequested
        time.sleep(0.02)
    return process.returncode


def stop(process: subprocess.Popen[bytes], *, first: signal.Signals, grace_s: float) -> None:
    """Sends `first`, waits, and kills the whole session's group if it is still there after `grace_s` seconds."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            kill_group(process)
            process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and to all of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def tail(log: Path, *, num_lines: int = 20) -> str:
    """The end of a log, for error messages; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-num_lines:])
