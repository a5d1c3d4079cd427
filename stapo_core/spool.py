"""The events of a run, appended to `events.jsonl` one whole line at a time. Knows bytes and pydantic alone."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from stapo_core.events import Event

_STORAGE_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Spool:
    """Appends events. What an earlier attempt left half-written at the end is cut off first."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._descriptor, _end_of_lines(self._descriptor))

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Writes one event, stamped with the time, in a single write, whole or (OSError) not at all."""
        line = kind(time=time.time(), **fields).model_dump_json().encode() + b"\n"
        if (num_written := os.write(self._descriptor, line)) < len(line):  # the disk is full, or a limit is reached
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - num_written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Returns when everything written so far is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def is_storage_full(error: BaseException) -> bool:
    """Whether there is no room: on the disk, in a quota, or below the largest size that a file may have."""
    return isinstance(error, OSError) and error.errno in _STORAGE_FULL


def count_whole_bytes(path: Path) -> int:
    """Where the last whole line of a spool ends; 0 where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        return _end_of_lines(descriptor)
    finally:
        os.close(descriptor)


def _end_of_lines(descriptor: int, *, block: int = 65536) -> int:
    """The place after the last newline, looked for from the end."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
