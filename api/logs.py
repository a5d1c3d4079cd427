"""The trainer's log, read from the run directory, where it stays when the worker is gone. Places are bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.streams import KEEPALIVE_S, RETRY_MS

LOG_NAME = "trainer.log"
CHUNK = 64 * 1024


@dataclass(frozen=True)
class LogPart:
    """A stretch of the log, where it begins, where the next one does, how long the log is, and if more can be read."""

    text: str
    offset: int
    next_offset: int
    num_bytes: int
    has_more: bool


def log_path(runs_dir: Path, job_id: str) -> Path:
    """Where the log of a job lies."""
    return runs_dir / job_id / LOG_NAME


def read_log(path: Path, offset: int, *, max_bytes: int = CHUNK, is_over: bool) -> LogPart:
    """Whole lines from `offset` on; a negative offset counts from the end. A log that is not there is empty.

    Nobody goes on writing a log that `is_over`: its last line is told without its end, as a killed trainer left it.
    """
    try:
        with path.open("rb") as log:
            num_bytes = os.fstat(log.fileno()).st_size
            start = max(0, num_bytes + offset) if offset < 0 else min(offset, num_bytes)
            log.seek(start)
            read = log.read(max_bytes)
            if offset < 0 and start > 0:  # begin with a whole line
                skipped = read.find(b"\n") + 1
                start, read = start + skipped, read[skipped:]
    except FileNotFoundError:
        return LogPart("", 0, 0, 0, has_more=False)
    has_more = start + len(read) < num_bytes
    whole = read.rfind(b"\n") + 1
    is_last = is_over and not has_more
    kept = read if is_last or (not whole and len(read) == max_bytes) else read[:whole]
    return LogPart(kept.decode(errors="replace"), start, start + len(kept), num_bytes, has_more)


async def follow_log(
    path: Path, offset: int, *, poll_s: float, watching: AbstractContextManager[Callable[[], bool]]
) -> AsyncIterator[bytes]:
    """Server-sent events `log` (`id` = where the next one begins), and `end` when what is watched says it has ended."""
    with watching as has_ended:
        async for event in _follow(path, offset, poll_s=poll_s, has_ended=has_ended):
            yield event


async def _follow(path: Path, offset: int, *, poll_s: float, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MS)
    idle_s = 0.0
    while True:
        is_over = has_ended()  # asked first, so that what was written before is still sent
        part = await asyncio.to_thread(read_log, path, offset, is_over=is_over)
        if part.next_offset > offset:
            offset, idle_s = part.next_offset, 0.0
            data = orjson.dumps({"text": part.text, "offset": part.offset}).decode()
            yield format_sse_event(event="log", data_str=data, id=str(offset))
            continue
        if is_over:
            yield format_sse_event(event="end", data_str="{}")
            return
        await asyncio.sleep(poll_s)
        idle_s += poll_s
        if idle_s >= KEEPALIVE_S:
            idle_s = 0.0
            yield KEEPALIVE_COMMENT
