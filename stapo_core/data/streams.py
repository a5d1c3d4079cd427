"""Opens a data file as lines of bytes, plain or compressed, with every size capped. Knows files; it knows no JSON.

What a file is, its first bytes say: names can be wrong, and uploads have none.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, Protocol

from stapo_core.data.faults import DataError
from stapo_core.data.rows import MAX_LINE_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES = 8 * 2**30
"""Most bytes of a file, after decompression."""
MAX_RATIO, FREE_BYTES = 200, 16 * 2**20
"""A compressed file may grow by this factor; the first bytes are free, since small files compress as they like."""
WINDOW_LOG = 23
"""A zstd frame says how far back it will refer, and its reader holds that much. 2^23 bytes are what RFC 8878 asks every
reader to bear, and what the levels up to 19 keep to."""
CHUNK = 2**20

Format = Literal["plain", "gzip", "zstd", "parquet"]


class Source(Protocol):
    """What can be read piece by piece."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


def find_format(path: Path) -> Format:
    """What a file's first bytes say it is. Raises DataError for a file that cannot be opened."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name an existing data file") from error
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head == b"\x28\xb5\x2f\xfd" or (head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "parquet" if head == b"PAR1" else "plain"


def read_lines(path: Path, kind: Format) -> Iterator[bytes | None]:
    """Lines of a text file, ended by a line feed alone; None stands for one over the cap, which is skipped.

    Raises DataError where the file is damaged or grows beyond its caps.
    """
    try:
        with path.open("rb") as file:
            yield from split_lines(capped(_decompress(file, kind), path.stat().st_size, is_packed=kind != "plain"))
    except (EOFError, OSError, zlib.error, zstd.ZstdError) as error:
        if "too much memory" in str(error):
            message = (
                f"the zstd window is larger than {2**WINDOW_LOG} bytes; pack with level 19 or less, without --long"
            )
            raise DataError(message, reason="window") from error
        raise DataError(f"the {kind} data is damaged ({error}); compress the file anew", reason="damaged") from error


def capped(source: Source, size: int, *, is_packed: bool) -> Iterator[bytes]:
    """The pieces of a source. Raises DataError beyond MAX_BYTES, and beyond MAX_RATIO times `size`."""
    total = 0
    while piece := source.read(CHUNK):
        total += len(piece)
        if total > MAX_BYTES:
            raise DataError(f"the file holds more than {MAX_BYTES} bytes; split it", reason="too_large")
        if is_packed and total > max(FREE_BYTES, MAX_RATIO * size):
            message = f"the file grows to more than {MAX_RATIO} times its {size} bytes; store it without compression"
            raise DataError(message, reason="decompression_bomb")
        yield piece


def split_lines(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """Whole lines without their line feed; None for one of more than MAX_LINE_BYTES, of which nothing is kept."""
    begun, is_skipped = b"", False
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = begun + whole[0]
            begun = b""
            for line in whole:
                yield None if is_skipped or len(line) > MAX_LINE_BYTES else line
                is_skipped = False
        begun = b"" if is_skipped else begun + rest
        if len(begun) > MAX_LINE_BYTES:
            begun, is_skipped = b"", True
    if is_skipped or begun:
        yield None if is_skipped else begun


def _decompress(file: IO[bytes], kind: Format) -> Source:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "zstd":
        return zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    return file
