"""Locks a process in. `give_up_rights` is done once, by the fork server; `lock` by each of its children, for good.

Knows what is locked and in which order, never what runs inside.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from stapo_core.sandbox import kernel, landlock, seccomp

MAX_MEMORY_BYTES = 2 * 2**30
MAX_FILE_BYTES = 16 * 2**20
MAX_FILES = 64
MAX_TASKS = 64
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_OF_OTHERS = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Account:
    """Whom root becomes; a user id that runs nothing else, since tasks are counted by it."""

    uid: int
    gid: int


def draw_ruleset(folder: str) -> landlock.Ruleset:
    """What a caged program may reach: its folder, Python's own library to read, and three harmless devices."""
    ruleset = landlock.Ruleset()
    ruleset.allow(folder, landlock.KEEP_HOUSE)
    ruleset.allow("/dev/null", landlock.READ | landlock.WRITE_FILE)
    ruleset.allow_all(_DEVICES, landlock.READ)
    for library in sys.path:
        if os.path.isdir(library):  # noqa: PTH112  # pathlib is not needed by the fork server
            ruleset.allow(library, landlock.READ_DIR)  # the finder of modules lists it
            with os.scandir(library) as entries:
                ruleset.allow_all([each.path for each in entries if each.name not in _OF_OTHERS], landlock.READ)
    return ruleset


def give_up_rights(account: Account | None) -> None:
    """Becomes the account, if one is named, and keeps no capability. Raises OSError where that is not allowed."""
    os.sched_setaffinity(0, {sorted(cpus := os.sched_getaffinity(0))[os.getpid() % len(cpus)]})
    with open("/proc/self/coredump_filter", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("0")  # a crash is written nowhere: a program on the machine that takes cores knows no limit of ours
    if account is not None:
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # what runs under the same user may not look into it
    if account is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (MAX_TASKS, MAX_TASKS))


def lock(ruleset: landlock.Ruleset, *, parent: int, cpu_s: int, keep: Sequence[int]) -> None:
    """Locks this process in; of its descriptors 0 to 4 stay open, and `keep`. Raises OSError if any lock does not hold.

    The system calls are filtered last: everything before needs more of them.
    """
    os.setsid()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # the fork server sees which files it holds; nothing caged can look
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _limit(cpu_s)
    ruleset.restrict_self()
    _close_all_but(keep)
    seccomp.install(os.getpid())


def is_open_to_others(folder: str) -> bool:
    """Whether this user can list a folder; root's own Python may lie below a home that is closed to everybody else."""
    try:
        return stat.S_ISDIR(os.stat(folder).st_mode) and bool(os.listdir(folder))  # noqa: PTH116, PTH208
    except OSError:
        return False


def _limit(cpu_s: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _close_all_but(keep: Sequence[int]) -> None:
    first = 5
    for number in sorted(keep):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, 2**16)
