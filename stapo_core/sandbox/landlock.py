"""Landlock: which files a process may still reach once it has locked itself in (Linux 5.13 and later).

Knows the kernel's interface of versions 1 to 7 and nothing of who is locked in. Rights that an older kernel cannot
withhold (TCP, abstract sockets, signals, truncating) are withheld by seccomp too.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from stapo_core.sandbox.kernel import syscall
from stapo_core.sandbox.syscalls import LANDLOCK_ADD_RULE, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << place for place in (1, 2, 3, 4, 5))
MAKE_DIR, MAKE_REG, TRUNCATE = 1 << 7, 1 << 8, 1 << 14
READ = READ_FILE | READ_DIR
KEEP_HOUSE = READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG
"""A folder of one's own: plain files and folders, no links, sockets, pipes or devices, nothing executed."""

_ON_FILES = READ_FILE | WRITE_FILE | TRUNCATE
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # from 5 on: 16, with ioctl on devices
_ALL_TCP, _ALL_SCOPES = 0b11, 0b11
_PATH_BENEATH = 1
_VERSION = 1


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The interface that the kernel offers; 0 where there is none."""
    try:
        return syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


class Ruleset:
    """Everything is withheld but what is allowed; it binds nobody before `restrict_self`."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no Landlock."""
        offered = version()
        self._rights = (1 << _NUM_FILE_RIGHTS.get(offered, 16)) - 1
        tcp, scopes = _ALL_TCP if offered >= 4 else 0, _ALL_SCOPES if offered >= 6 else 0
        known = ctypes.byref(_Ruleset(self._rights, tcp, scopes))
        size = 8 if offered < 4 else 16 if offered < 6 else 24
        self.descriptor = syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, known, size, 0)

    def allow(self, path: str, rights: int) -> None:
        """Lets what lies at `path`, and below it, be used so. Raises OSError for a path that is not there."""
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(parent).st_mode):
                rights &= _ON_FILES
            rule = ctypes.byref(_PathBeneath(rights & self._rights, parent))
            syscall("landlock_add_rule", LANDLOCK_ADD_RULE, self.descriptor, _PATH_BENEATH, rule, 0)
        finally:
            os.close(parent)

    def allow_all(self, paths: Iterable[str], rights: int) -> None:
        """The same for many; those that are not there are passed over."""
        for path in paths:
            if os.path.exists(path):  # noqa: PTH110  # pathlib is not needed by the fork server
                self.allow(path, rights)

    def restrict_self(self) -> None:
        """Locks this process in, and whatever it starts, for good. Raises OSError."""
        syscall("landlock_restrict_self", LANDLOCK_RESTRICT_SELF, self.descriptor, 0)
