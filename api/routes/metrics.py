"""A job's numbers and messages: as lists, and as streams that survive a cut."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from api.deps import AnswersDep, DatabaseDep, StreamsDep, ViewerDep, admit
from api.lifecycle import TERMINAL, JobState
from api.schemas import MetricsList, write_points
from api.store import jobs, metrics
from api.store.database import Database
from api.store.keys import Caller
from api.store.metrics import Kind, MetricsFilter
from api.store.tables import Job, JobEvent, StepMetrics
from api.streams import Row, Streams, respond

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Watch"])
MAX_POINTS = 10_000
"""So many are given to who names no number: a run of a million steps fits into no answer."""
Seq = Annotated[int, Query(ge=0, description="Only what follows this place in the job's sequence.")]
LastEventId = Annotated[int | None, Header(ge=0, description="Sent by a browser that reconnects; wins over `after`.")]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {}}},
    204: {"description": "The job has ended and nothing is left to send: do not reconnect."},
}


@router.get("/metrics", summary="Read a job's metrics", response_model=MetricsList)
def list_job_metrics(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    answers: AnswersDep,
    keys: Annotated[str | None, Query(description="Metric keys, separated by commas; all when omitted.")] = None,
    kind: Annotated[Kind | None, Query(description="Training steps or evaluations; both when omitted.")] = None,
    from_step: Annotated[int | None, Query(ge=0, lt=2**31, description="Only this step and later ones.")] = None,
    to_step: Annotated[int | None, Query(ge=0, lt=2**31, description="Only this step and earlier ones.")] = None,
    max_points: Annotated[int, Query(ge=2, le=100_000, description="Thin to about so many points.")] = MAX_POINTS,
) -> Response:
    """Points by step; thinning keeps every key's extremes, so a spike of one step survives.

    `num_points` says how many there were; the table `metrics.csv` has them all, however long the run.
    """
    admit(viewer, job_id)
    wanted_keys = {key for key in keys.split(",") if key} if keys else None
    wanted = MetricsFilter(kind=kind, keys=wanted_keys, from_step=from_step, to_step=to_step)
    question = (job_id, kind, keys, from_step, to_step, max_points)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        body = answers.find(question, job.last_seq)
        if body is None:
            points = metrics.read_points(session, job, wanted, max_points=max_points)
            body = write_points(points, last_seq=job.last_seq)
            answers.keep(question, job.last_seq, body)
    return Response(body, media_type="application/json")


@router.get("/metrics/stream", summary="Follow a job's metrics", response_class=StreamingResponse, responses=STREAM)
def stream_job_metrics(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    streams: StreamsDep,
    after: Seq = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """Events `metrics` (one step each, `id` = its place in the sequence), `state`, and at last `end`.

    A reader that fell behind is told `resync`, with the last place that it was sent, and reads on without a gap.
    """
    return _stream(_job(database, viewer, job_id), viewer, database, streams, _start(after, last_event_id), StepMetrics)


@router.get("/events/stream", summary="Follow a job's events", response_class=StreamingResponse, responses=STREAM)
def stream_job_events(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    streams: StreamsDep,
    after: Seq = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """Events `event` (one message each, `id` = its place in the sequence), `state`, and at last `end`.

    A reader that fell behind is told `resync`, with the last place that it was sent, and reads on without a gap.
    """
    return _stream(_job(database, viewer, job_id), viewer, database, streams, _start(after, last_event_id), JobEvent)


def _job(database: Database, viewer: Caller, job_id: str) -> Job:
    admit(viewer, job_id)
    with database.transaction() as session:
        return jobs.get_job(session, viewer.tenant, job_id)


def _start(after: int, last_event_id: int | None) -> int:
    return after if last_event_id is None else last_event_id


def _stream(job: Job, viewer: Caller, database: Database, streams: Streams, after: int, of: type[Row]) -> Response:
    if JobState(job.state) in TERMINAL and not _is_more(database, job, after, of):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return respond(streams.follow(job, after=after, of=of), streams.place(viewer))


def _is_more(database: Database, job: Job, after: int, of: type[Row]) -> bool:
    with database.transaction() as session:
        return metrics.has_rows_behind(session, job.id, after, of)
