"""Live streams: one look at the database per tick for all watched jobs, whoever watches.

Every reader pulls at its own pace: from the shared buffer when it keeps up, from the rows when it does not. So a slow
reader costs nobody anything, and a reader that comes back with its last id misses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.lifecycle import TERMINAL, JobState
from api.schemas import JobEventObject, JobProgress, MetricsPoint
from api.store import jobs, metrics
from api.store.database import Database, Outage
from api.store.tables import Job, JobEvent, StepMetrics

CHUNK = 500
BUFFER = 2000
KEEPALIVE_S = 15.0
RETRY_MS = 1000

Row = StepMetrics | JobEvent


@dataclass
class Tail:
    """The newest rows of one watched job, and an event that is replaced each time something is new."""

    progress: JobProgress
    newest_seq: int
    floor: int
    """Rows above this number are in the buffer, down to the last one."""
    rows: deque[Row] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0

    def add(self, rows: list[Row], progress: JobProgress, newest_seq: int) -> None:
        """Takes new rows in and wakes every reader."""
        self.rows.extend(rows)
        while len(self.rows) > BUFFER:
            self.floor = self.rows.popleft().seq
        self.progress, self.newest_seq = progress, newest_seq
        woken, self.changed = self.changed, asyncio.Event()
        woken.set()


class Streams:
    """Follows jobs for all readers of this process."""

    def __init__(self, database: Database, *, poll_s: float) -> None:
        self._database = database
        self._poll_s = poll_s
        self._tails: dict[str, Tail] = {}

    async def run(self) -> None:
        """Looks for news until cancelled. A database that is away is only waited for."""
        while True:
            await asyncio.sleep(self._poll_s)
            if not self._tails:
                continue
            known = {job_id: tail.newest_seq for job_id, tail in self._tails.items()}
            try:
                news = await asyncio.to_thread(self._read_news, known)
            except Outage:
                continue
            for job_id, (job, rows) in news.items():
                tail = self._tails.get(job_id)
                if tail is not None and (rows or progress_of(job) != tail.progress):
                    tail.add(rows, progress_of(job), max([tail.newest_seq, *(row.seq for row in rows)]))

    async def follow(self, job: Job, *, after: int, of: type[Row]) -> AsyncIterator[bytes]:
        """Server-sent events: every row of kind `of` behind `after`, the job's progress, and `end` when it ended."""
        yield format_sse_event(retry=RETRY_MS)
        with self._watch(job) as tail:
            seq, told = after, None
            while True:
                changed, progress = tail.changed, tail.progress
                rows = await self._rows_behind(job.id, seq, tail)
                for row in rows:
                    seq = row.seq
                    if isinstance(row, of):
                        yield encode_row(row)
                if progress != told:
                    told = progress
                    yield _encode("state", progress)
                if rows or changed is not tail.changed:
                    continue
                if progress.state in TERMINAL:
                    yield _encode("end", progress)
                    return
                seq = max(seq, tail.newest_seq)  # rows that a new attempt took back leave numbers without a row
                try:
                    await asyncio.wait_for(changed.wait(), KEEPALIVE_S)
                except TimeoutError:
                    yield KEEPALIVE_COMMENT

    @contextmanager
    def _watch(self, job: Job) -> Iterator[Tail]:
        fresh = Tail(progress=progress_of(job), newest_seq=job.last_seq, floor=job.last_seq)
        tail = self._tails.setdefault(job.id, fresh)
        tail.readers += 1
        try:
            yield tail
        finally:
            tail.readers -= 1
            if not tail.readers:
                self._tails.pop(job.id, None)

    async def _rows_behind(self, job_id: str, seq: int, tail: Tail) -> list[Row]:
        """The next rows behind `seq`, at most CHUNK."""
        if seq >= tail.floor:
            return [row for row in tail.rows if row.seq > seq][:CHUNK]
        return await asyncio.to_thread(self._read_rows, job_id, seq)

    def _read_rows(self, job_id: str, seq: int) -> list[Row]:
        with self._database.transaction() as session:
            return metrics.read_since(session, job_id, seq, limit=CHUNK)

    def _read_news(self, known: dict[str, int]) -> dict[str, tuple[Job, list[Row]]]:
        with self._database.transaction() as session:
            return {
                job.id: (job, metrics.read_since(session, job.id, known[job.id], limit=BUFFER))
                for job in jobs.find_jobs(session, list(known))
            }


def progress_of(job: Job) -> JobProgress:
    """Where the job stands."""
    return JobProgress(
        state=JobState(job.state), attempt=job.fence, stage=job.stage, step=job.step, num_steps=job.num_steps
    )


def encode_row(row: Row) -> bytes:
    """One row as a server-sent event whose id is its place in the job's sequence."""
    if isinstance(row, StepMetrics):
        return _encode("metrics", MetricsPoint.of(row), seq=row.seq)
    return _encode("event", JobEventObject.of(row), seq=row.seq)


def _encode(name: str, item: MetricsPoint | JobEventObject | JobProgress, *, seq: int | None = None) -> bytes:
    data = orjson.dumps(item.model_dump(mode="json")).decode()
    return format_sse_event(event=name, data_str=data, id=None if seq is None else str(seq))
