"""Which prompts stand twice, in one file or in two, however many there are. Knows digests, and no text.

A digest and a line are 24 bytes. They are parted by the digest's first byte, written to a file where they are many, and
each part is looked at by itself: memory holds some megabytes and the 256th part of the prompts.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

_RECORD = Struct("<16sq")
_DTYPE = np.dtype([("high", "<u8"), ("low", "<u8"), ("line", "<i8")])
_PARTS = 256
_SEGMENT = 2048 * _RECORD.size  # bytes of a part that are written together


@dataclass
class Repeats:
    """How many prompts were there before, and the first of them: their line and the line of the first."""

    max_listed: int
    count: int = 0
    listed: list[tuple[int, int]] = field(default_factory=list)

    def add(self, lines: np.ndarray[Any, Any], first_lines: np.ndarray[Any, Any]) -> None:
        """Counts all, and keeps those with the smallest lines."""
        self.count += len(lines)
        self.listed = sorted([*self.listed, *zip(lines.tolist(), first_lines.tolist(), strict=True)])[: self.max_listed]


class PromptIndex:
    """Takes the digests of one file, and before them those of another to compare with."""

    def __init__(self, scratch: Path) -> None:
        """What does not fit into memory is written to a nameless file in `scratch`."""
        self._buffers = [bytearray() for _ in range(_PARTS)]
        self._segments: list[list[int]] = [[] for _ in range(_PARTS)]  # where each part's lie in the file
        self._scratch = scratch
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """The file is opened when it is needed."""
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Closes the file, and with that it is gone."""
        if self._file is not None:
            self._file.close()

    def add(self, digest: bytes, line: int) -> None:
        """A prompt of the file, by its line from 1."""
        buffer = self._buffers[digest[0]]
        buffer += _RECORD.pack(digest, line)
        if len(buffer) >= _SEGMENT:
            self._spill(digest[0])

    def add_other(self, digest: bytes) -> None:
        """A prompt of the other file. All of them come before the first of the file's own."""
        self.add(digest, 0)

    def find(self, max_listed: int) -> tuple[Repeats, Repeats]:
        """Prompts that stood in this file before, and those that stand in the other (their first line is 0)."""
        duplicates, overlaps = Repeats(max_listed), Repeats(max_listed)
        for part in range(_PARTS):
            records = self._part(part)
            if len(records) == 0:
                continue
            records = records[np.lexsort((records["low"], records["high"]))]  # stable: lines rise within a digest
            lines = records["line"]
            begins = np.ones(len(records), dtype=bool)
            begins[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
            is_own = lines > 0
            first_own = is_own & (begins | ~np.concatenate([[False], is_own[:-1]]))
            group = np.maximum.accumulate(np.where(begins, np.arange(len(lines)), 0))
            origin = np.maximum.accumulate(np.where(first_own, np.arange(len(lines)), 0))
            again = is_own & ~first_own
            shared = is_own & (lines[group] == 0)
            duplicates.add(lines[again], lines[origin[again]])
            overlaps.add(lines[shared], lines[group[shared]])
        return duplicates, overlaps

    def _part(self, part: int) -> np.ndarray[Any, Any]:
        pieces = []
        for offset in self._segments[part]:
            assert self._file is not None  # noqa: S101  # it was opened for the first segment
            self._file.seek(offset)
            pieces.append(self._file.read(_SEGMENT))
        return np.frombuffer(b"".join([*pieces, self._buffers[part]]), dtype=_DTYPE)

    def _spill(self, part: int) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix=".tmp-prompts-", dir=self._scratch)  # noqa: SIM115  # until exit
        self._segments[part].append(self._file.seek(0, os.SEEK_END))
        self._file.write(self._buffers[part])
        self._buffers[part].clear()
