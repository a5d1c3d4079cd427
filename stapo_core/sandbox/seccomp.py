"""The filter that judges every system call of a caged program: what is not allowed fails with EPERM.

A classic BPF program over (number, architecture, arguments). Calls of another architecture, `int 0x80` and x32 numbers
among them, kill the process: they would reach other calls by the same numbers.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Iterable
from dataclasses import dataclass

from stapo_core.sandbox import syscalls
from stapo_core.sandbox.kernel import syscall

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X86_64, _X32 = 0xC000003E, 0x40000000
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2

_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020080
_AF_UNIX, _SOCK_STREAM, _SOCK_FLAGS = 1, 1, 0o2004000
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # duplicate, the descriptor's and the file's flags; no owners, locks or leases
_PRCTLS = (15, 16)  # the thread's name

_Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Test:
    """One argument, masked, is one of `values`; the high half of the word counts where `is_wide`."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    is_wide: bool = False


class _Line(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("lines", ctypes.POINTER(_Line))]


def find_obstacle() -> str | None:
    """Why calls cannot be filtered on this machine; None where they can."""
    if platform.machine() != "x86_64":
        return f"the filter of system calls is written for x86_64, and this machine is {platform.machine()}"
    try:
        syscall("seccomp", syscalls.SECCOMP, _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_KILL_PROCESS)))
    except OSError as error:
        return f"the kernel offers no seccomp filters ({error.strerror})"
    return None


def install(pid: int) -> None:
    """Puts the filter on this process, whose id is `pid`, for good; it must have given up new privileges before."""
    lines = (_Line * len(program := _compile(pid)))(*(_Line(*each) for each in program))
    syscall("seccomp", syscalls.SECCOMP, _SET_MODE_FILTER, 0, ctypes.byref(_Program(len(program), lines)))


def rules(pid: int) -> dict[int, tuple[Test, ...]]:
    """Calls that are allowed where every test of their arguments holds."""
    itself = Test(0, (pid,))
    return {
        syscalls.IOCTL: (Test(1, _IOCTLS),),
        syscalls.FCNTL: (Test(1, _FCNTLS),),
        syscalls.PRCTL: (Test(0, _PRCTLS),),
        syscalls.CLONE: (Test(0, (_CLONE_THREAD,), mask=_CLONE_THREAD | _CLONE_NAMESPACES),),
        syscalls.KILL: (itself,),
        syscalls.TGKILL: (itself,),
        syscalls.TKILL: (itself,),
        syscalls.PRLIMIT64: (Test(0, (0, pid)),),
        syscalls.SOCKETPAIR: (Test(0, (_AF_UNIX,)), Test(1, (_SOCK_STREAM,), mask=~_SOCK_FLAGS & 0xFFFFFFFF)),
        syscalls.SENDTO: (Test(4, (0,), is_wide=True),),
    }


def _compile(pid: int) -> list[_Instruction]:
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for number in syscalls.ALLOWED.values():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, tests in rules(pid).items():
        body = list(_check(tests))
        program += [(_EQUAL, 0, len(body), number), *body]
    # The C library asks for threads by clone3, whose flags lie in memory, and falls back on clone where there is none.
    program += [(_EQUAL, 0, 1, syscalls.CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    return [*program, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _check(tests: Iterable[Test]) -> Iterable[_Instruction]:
    """Allows where every test holds, else refuses; it never falls through."""
    for test in tests:
        low = _ARGUMENTS + 8 * test.argument
        if test.is_wide:
            yield from [(_LOAD, 0, 0, low + 4), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
        yield from [(_LOAD, 0, 0, low), (_AND, 0, 0, test.mask)]
        for place, value in enumerate(test.values):
            yield (_EQUAL, len(test.values) - place, 0, value)
        yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    yield (_RETURN, 0, 0, _ALLOW)
