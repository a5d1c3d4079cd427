"""The fork server: it is told to start a caged child with five descriptors, watches it, and tells how it ended.

It runs with nothing but the standard library and an empty environment, and never sees a program, an input or an answer:
these go through descriptors that it hands on unread. So a child's memory, which is a copy of its own, holds no secret.
It works in the private folder, and removes it when its host is gone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from dataclasses import dataclass

from stapo_core.sandbox import cage, inmate
from stapo_core.sandbox.landlock import Ruleset

MAX_DISK_BYTES = 64 * 2**20
MAX_ENTRIES = 1000
STOP = b"stop"
_CONTROL = 0
_LOOK_EVERY_S = 0.05
_ROOM = 65536
_NOT_LOCKED = 70
# Loaded before the fork: programs import them at no cost, and their shared libraries lie where the cage has no door.
_PRELOADED = (
    "array", "ast", "asyncio", "base64", "bisect", "calendar", "collections", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "html", "inspect",
    "itertools", "math", "numbers", "operator", "pprint", "queue", "random", "re", "shutil", "statistics", "string",
    "struct", "tempfile", "textwrap", "threading", "traceback", "typing", "unicodedata", "uuid", "zlib",
)  # fmt: skip


@dataclass
class _Child:
    """A caged child, and what it may use."""

    pid: int
    descriptor: int
    deadline: float

    def trespass(self) -> str | None:
        """What it has used too much of, by now."""
        if time.monotonic() >= self.deadline:
            return "timeout"
        if len(_names(f"/proc/{self.pid}/task")) > cage.MAX_TASKS:
            return "threads"
        return "disk" if _is_overfull(_nameless_bytes(self.pid)) else None


def main() -> None:
    """`folder uid:gid|-`, and the control socket as standard input."""
    folder, user = sys.argv[1:3]
    for name in _PRELOADED:
        __import__(name)
    while os.open("/dev/null", os.O_RDWR) <= inmate.ANSWERS:  # what is handed on must not lie where it is to be put
        continue
    control = socket.socket(fileno=_CONTROL)
    try:
        ruleset = cage.draw_ruleset(folder)
        os.chdir(folder)
        doors = [os.open(each, os.O_PATH) if os.path.isdir(each) else -1 for each in sys.path]  # noqa: PTH112
        uid, _, gid = user.partition(":")
        cage.give_up_rights(None if user == "-" else cage.Account(int(uid), int(gid)))
    except OSError as error:
        control.sendall(json.dumps({"obstacle": str(error)}).encode())
        return
    keep = _pass_through(doors)
    gc.freeze()
    try:
        with contextlib.suppress(ConnectionError):  # the host is gone
            control.sendall(json.dumps({"obstacle": None}).encode())
            _serve(control, ruleset, keep)
    finally:
        _empty()
        with contextlib.suppress(OSError):  # root's temporary folder may be closed to us
            os.rmdir(folder)  # noqa: PTH106


def _pass_through(doors: list[int]) -> list[int]:
    """Reaches the library through open descriptors where the path to it is closed to the user that we now are."""
    keep = []
    for place, (library, door) in enumerate(zip(list(sys.path), doors, strict=True)):
        if door >= 0 and not cage.is_open_to_others(library):
            sys.path[place] = f"/proc/self/fd/{door}"
            keep.append(door)
        elif door >= 0:
            os.close(door)
    sys.path_importer_cache.clear()
    return keep


def _serve(control: socket.socket, ruleset: Ruleset, keep: list[int]) -> None:
    while True:
        message, passed, _, _ = socket.recv_fds(control, _ROOM, 5)
        if not message:
            return
        if message == STOP:  # it crossed with the word that the child had ended
            continue
        asked = json.loads(message)
        parent = os.getpid()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become_inmate(ruleset, keep, passed, parent=parent, cpu_s=asked["cpu_s"])
        for descriptor in passed:
            os.close(descriptor)
        told = _watch(control, _Child(pid, os.pidfd_open(pid), started + asked["timeout_s"]))
        _empty()
        control.sendall(json.dumps(told).encode())


def _become_inmate(ruleset: Ruleset, keep: list[int], passed: list[int], *, parent: int, cpu_s: int) -> None:
    """Never returns."""
    try:
        for wanted, descriptor in enumerate(passed):
            os.dup2(descriptor, wanted)
        cage.lock(ruleset, parent=parent, cpu_s=cpu_s, keep=keep)
        os._exit(inmate.run() & 0xFF)
    finally:
        os._exit(_NOT_LOCKED)


def _watch(control: socket.socket, child: _Child) -> dict[str, object]:
    """Waits for the child's end and brings it about where it uses too much or nobody wants it any more."""
    ended = "by_itself"
    with select.epoll() as both:
        both.register(child.descriptor, select.EPOLLIN)
        both.register(control, select.EPOLLIN)
        while True:
            left = max(0.0, child.deadline - time.monotonic())
            heard = dict(both.poll(min(left, _LOOK_EVERY_S)))
            if child.descriptor in heard:
                break
            # On the control socket somebody tells us to stop, or has left us alone.
            ended = "stopped" if _CONTROL in heard else child.trespass() or ended
            if ended != "by_itself":
                os.kill(child.pid, signal.SIGKILL)
                break
    _, status, used = os.wait4(child.pid, 0)
    os.close(child.descriptor)
    if ended == "stopped":
        control.recv(_ROOM)  # nothing, where we were left alone: the next question is none, too
    code = os.waitstatus_to_exitcode(status)
    return {"ended": ended, "code": code, "cpu_s": used.ru_utime + used.ru_stime, "memory_bytes": used.ru_maxrss * 1024}


def _names(folder: str) -> list[str]:
    """What lies in a folder of /proc; nothing where the process has ended."""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _nameless_bytes(pid: int) -> int:
    """Bytes of the files that have no name (any more) and last as long as the child holds them."""
    sizes: dict[int, int] = {}
    home = os.getcwd()  # noqa: PTH109
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        for line in lines:
            *_, inode, path = line.rstrip("\n").split(maxsplit=5) if line.endswith(" (deleted)\n") else ("0", "")
            if path.startswith(home):
                sizes[int(inode)] = cage.MAX_FILE_BYTES  # one mapped page keeps all of it, and its size is not told
    for task in _names(f"/proc/{pid}/task"):  # threads may have descriptors of their own
        for descriptor in _names(f"/proc/{pid}/task/{task}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                found = os.stat(f"/proc/{pid}/task/{task}/fd/{descriptor}")  # noqa: PTH116
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    sizes[found.st_ino] = 512 * found.st_blocks
    return sum(sizes.values())


def _is_overfull(num_bytes: int) -> bool:
    """Whether what lies in the folder, with `num_bytes` more, is too large or too many; looks no further than that."""
    if num_bytes > MAX_DISK_BYTES:
        return True
    num_entries = 0
    waiting = ["."]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    num_entries, num_bytes = num_entries + 1, num_bytes + 512 * found.st_blocks
                    if num_entries > MAX_ENTRIES or num_bytes > MAX_DISK_BYTES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:
            if isinstance(error, FileNotFoundError):  # the child works on it meanwhile
                continue
            return True  # a path that is too long, a folder that is closed
    return False


def _empty() -> None:
    """Removes everything in the folder, in no deeper paths than two: what is nested is moved up first."""
    moved, mark = 0, os.urandom(8).hex()
    while entries := os.listdir():  # noqa: PTH208
        for name in entries:
            try:
                os.unlink(name)  # noqa: PTH108
                continue
            except (IsADirectoryError, PermissionError):
                os.chmod(name, 0o700)  # noqa: PTH101
            for nested in os.listdir(name):  # noqa: PTH208
                moved += 1
                os.chmod(f"{name}/{nested}", 0o700)  # noqa: PTH101  # a folder that is closed cannot be moved
                os.rename(f"{name}/{nested}", f"{mark}-{moved}")  # noqa: PTH104
            os.rmdir(name)  # noqa: PTH106
