"""Live streams: one look at the database per tick for all watched jobs, whoever watches.

Every reader pulls at its own pace: from the shared buffer when it keeps up, from the rows when it does not. So a slow
reader costs nobody anything: one that has fallen out of the buffer is told `resync` with the last place that it was
sent, and reads on from the rows. A reader that comes back with its last id misses nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import anyio
import orjson
import structlog
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Receive, Scope, Send

from api.errors import TooManyRequests
from api.lifecycle import TERMINAL, JobState
from api.schemas import JobEventObject, JobProgress, MetricsPoint
from api.store import jobs, keys, metrics
from api.store.database import Database, Outage, Session
from api.store.keys import Caller
from api.store.tables import Job, JobEvent, StepMetrics

CHUNK = 500
BUFFER = 2000
KEEPALIVE_S = 15.0
RETRY_MS = 1000
PAUSE_S = 1.0
"""After something unforeseen the database is left alone for so long."""
_LOG = structlog.get_logger()

Row = StepMetrics | JobEvent


@dataclass(frozen=True)
class Line:
    """A row as it goes over the wire, written once for all who read it."""

    seq: int
    of: type[Row]
    text: bytes


@dataclass
class Tail:
    """The newest rows of one watched job, and an event that is replaced each time something is new."""

    progress: JobProgress
    newest_seq: int
    floor: int
    """What lies above this number is in the buffer, down to the last row."""
    lines: deque[Line] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0

    def add(self, lines: list[Line], progress: JobProgress, newest_seq: int) -> None:
        """Takes new lines in and wakes every reader."""
        self.lines.extend(lines)
        while len(self.lines) > BUFFER:
            self.floor = self.lines.popleft().seq
        self.progress, self.newest_seq = progress, newest_seq
        woken, self.changed = self.changed, asyncio.Event()
        woken.set()

    def behind(self, seq: int) -> list[Line]:
        """The next lines of the buffer behind `seq`, at most CHUNK: found from its end, where readers stand."""
        found = []
        for line in reversed(self.lines):
            if line.seq <= seq:
                break
            found.append(line)
        return found[::-1][:CHUNK]


@dataclass(frozen=True, eq=False)
class Place:
    """An open stream's place: what is sent in its scope ends when the key that opened the stream has ended."""

    key_id: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Streams:
    """Follows jobs for all readers of this process."""

    def __init__(self, database: Database, *, poll_s: float, max_streams: int) -> None:
        self._database = database
        self._poll_s = poll_s
        self._max_streams = max_streams
        self._tails: dict[str, Tail] = {}
        self._open: Counter[str] = Counter()
        self._places: set[Place] = set()
        self._untold: set[str] = set()

    @contextmanager
    def place(self, reader: Caller) -> Iterator[Place]:
        """An open stream's place until the block ends; take it in the event loop, where one comes at a time.

        Raises TooManyRequests when the tenant holds as many streams of this process open as it may.
        """
        place = Place(reader.key_id)
        if self._open[reader.tenant] >= self._max_streams:
            raise TooManyRequests(
                f"You hold {self._max_streams} streams open, the most allowed; close some.", code="quota_exceeded"
            )
        self._open[reader.tenant] += 1
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)
            self._open[reader.tenant] -= 1

    async def run(self) -> None:
        """Looks for news until cancelled. A database that is away is only waited for, and no bug ends it either."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
                await self._look_at_keys()
            except Outage:
                continue
            except Exception:  # every reader of this process would be told nothing for ever
                _LOG.exception("streams_failed")
                await asyncio.sleep(PAUSE_S)

    async def _look(self) -> None:
        known = {job_id: tail.newest_seq for job_id, tail in self._tails.items()}
        news = await asyncio.to_thread(self._read_news, known) if known else {}
        for job_id, (progress, lines) in news.items():
            tail = self._tails.get(job_id)
            if tail is None or tail.newest_seq != known[job_id]:  # made anew meanwhile: these are not its next
                continue
            # A job may have ended behind the lines that were read: that is told with the last of them.
            told = progress if len(lines) < BUFFER else tail.progress
            if lines or told != tail.progress:
                tail.add(lines, told, max([tail.newest_seq, *(line.seq for line in lines)]))

    async def _look_at_keys(self) -> None:
        shown = {place.key_id for place in self._places if place.key_id}
        ended = await asyncio.to_thread(self._find_ended, shown) if shown else set()
        for place in self._places:
            if place.key_id in ended:
                place.scope.cancel()

    async def follow(self, job: Job, *, after: int, of: type[Row]) -> AsyncIterator[bytes]:
        """Server-sent events: every row of kind `of` behind `after`, the job's progress, and `end` when it ended."""
        yield format_sse_event(retry=RETRY_MS)
        with self.watch(job) as tail:
            seq, told, was_near = after, None, False
            while True:
                changed, progress = tail.changed, tail.progress
                is_near = seq >= tail.floor
                if was_near and not is_near:
                    yield format_sse_event(event="resync", data_str=orjson.dumps({"seq": seq}).decode())
                was_near = is_near
                lines = tail.behind(seq) if is_near else await asyncio.to_thread(self._read_lines, job.id, seq)
                if lines:
                    seq = lines[-1].seq
                if news := b"".join(line.text for line in lines if line.of is of):
                    yield news
                if progress != told:
                    told = progress
                    yield _encode("state", progress)
                if lines or changed is not tail.changed:
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
    def watch(self, job: Job) -> Iterator[Tail]:
        """The job's tail, which all its readers of this process share, kept up to date until the block ends."""
        fresh = Tail(progress=progress_of(job), newest_seq=job.last_seq, floor=job.last_seq)
        tail = self._tails.setdefault(job.id, fresh)
        tail.readers += 1
        try:
            yield tail
        finally:
            tail.readers -= 1
            if not tail.readers:
                self._tails.pop(job.id, None)

    @contextmanager
    def watch_end(self, job: Job) -> Iterator[Callable[[], bool]]:
        """Whether the job has ended by now, for who follows something else of it."""
        with self.watch(job) as tail:
            yield lambda: tail.progress.state in TERMINAL

    def _find_ended(self, key_ids: set[str]) -> set[str]:
        with self._database.transaction() as session:
            return keys.find_ended(session, key_ids)

    def _read_lines(self, job_id: str, seq: int) -> list[Line]:
        with self._database.transaction() as session:
            return [write_line(row) for row in metrics.read_since(session, job_id, seq, limit=CHUNK)]

    def _read_since(self, session: Session, job: Job, seq: int) -> list[Row]:
        return metrics.read_since(session, job.id, seq, limit=BUFFER) if job.last_seq > seq else []

    def _read_news(self, known: dict[str, int]) -> dict[str, tuple[JobProgress, list[Line]]]:
        """What is new of each job; one that cannot be told is left out, and the others are not."""
        with self._database.transaction() as session:
            found = [
                (job, self._read_since(session, job, known[job.id])) for job in jobs.find_jobs(session, list(known))
            ]
        news = {}
        for job, rows in found:
            try:
                news[job.id] = progress_of(job), [write_line(row) for row in rows]
            except Exception:
                if job.id not in self._untold:
                    self._untold.add(job.id)
                    _LOG.exception("job_cannot_be_told", job=job.id)
        return news


class _Events(StreamingResponse):
    """Is in its place from before its status is sent until its reader has left, or the reader's key has ended."""

    def __init__(self, events: AsyncIterator[bytes], place: AbstractContextManager[Place]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place as place:
            with place.scope:
                await super().__call__(scope, receive, send)
            if place.scope.cancelled_caught:
                await send({"type": "http.response.body", "body": b"", "more_body": False})


def respond(events: AsyncIterator[bytes], place: AbstractContextManager[Place] | None = None) -> StreamingResponse:
    """Server-sent events as an answer that nothing on the way keeps or holds back, in its `place` while it is open."""
    return _Events(events, place or nullcontext(Place()))


def progress_of(job: Job) -> JobProgress:
    """Where the job stands."""
    return JobProgress(
        state=JobState(job.state), attempt=job.fence, stage=job.stage, step=job.step, num_steps=job.num_steps
    )


def write_line(row: Row) -> Line:
    """One row as a server-sent event whose id is its place in the job's sequence; nothing of one that is damaged."""
    of = type(row)
    try:
        text = (
            _encode("metrics", MetricsPoint.of(row), seq=row.seq)
            if isinstance(row, StepMetrics)
            else _encode("event", JobEventObject.of(row), seq=row.seq)
        )
    except Exception:
        _LOG.exception("row_cannot_be_told", job=row.job_id, seq=row.seq)
        text = b""
    return Line(row.seq, of, text)


def _encode(name: str, item: MetricsPoint | JobEventObject | JobProgress, *, seq: int | None = None) -> bytes:
    data = orjson.dumps(item.model_dump(mode="json")).decode()
    return format_sse_event(event=name, data_str=data, id=None if seq is None else str(seq))
