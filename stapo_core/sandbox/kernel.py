"""System calls that Python does not wrap, through ctypes; a refusal is an OSError that names the call."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 38, 47


def syscall(name: str, number: int, *arguments: object) -> int:
    """Calls by number; whole numbers go as words, the rest as ctypes has it. Raises OSError."""
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    found: int = _LIBC.syscall(ctypes.c_long(number), *words)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return found


def prctl(option: int, *arguments: int) -> None:
    """Sets something of this process. Raises OSError."""
    words = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    if _LIBC.prctl(ctypes.c_int(option), *words) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def drop_capabilities() -> None:
    """Gives up every capability, also those that an ordinary user was lent. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _LIBC.capset(header, nothing) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")
