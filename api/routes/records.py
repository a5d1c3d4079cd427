"""What is kept of a job: its manifest and its trainer's log."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from api.deps import DatabaseDep, SettingsDep, StreamsDep, ViewerDep, admit
from api.lifecycle import LEASED, TERMINAL, JobState
from api.logs import CHUNK, follow_log, log_path, read_log
from api.routes.metrics import STREAM, LastEventId
from api.schemas import LogText, Manifest, job_manifest
from api.store import artifacts, events, files, jobs
from api.streams import respond

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])
Offset = Annotated[int, Query(ge=-(2**40), lt=2**40, description="The byte to begin at; negative from the end.")]


@router.get("/manifest", summary="Read what a job was made from")
def retrieve_manifest(job_id: str, viewer: ViewerDep, database: DatabaseDep) -> Manifest:
    """The resolved config, the seed, digests of data, grader and checkpoints, library versions and the device."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        ids = [file_id for file_id in (job.training_file, job.validation_file) if file_id]
        return job_manifest(
            job,
            files={file_id: files.get_file(session, viewer.tenant, file_id) for file_id in ids},
            started=events.newest_start(session, job),
            checkpoints=list(artifacts.all_checkpoints(session, job)),
            service_version=version("stapo"),
        )


@router.get("/logs", summary="Read the trainer's log", tags=["Watch"])
def read_job_log(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    offset: Offset = 0,
    max_bytes: Annotated[int, Query(ge=1024, le=2**20, description="Most bytes of an answer.")] = CHUNK,
) -> LogText:
    """Whole lines of what the trainer printed, all attempts one after another; it stays when the worker is gone.

    While no worker holds the job, the last line is told as it was left.
    """
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
    is_over = JobState(job.state) not in LEASED
    return LogText(**vars(read_log(log_path(settings.runs_dir, job.id), offset, max_bytes=max_bytes, is_over=is_over)))


@router.get(
    "/logs/stream",
    summary="Follow the trainer's log",
    tags=["Watch"],
    response_class=StreamingResponse,
    responses=STREAM,
)
def stream_job_log(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    streams: StreamsDep,
    settings: SettingsDep,
    after: Annotated[int, Query(ge=0, lt=2**40, description="The byte to begin at.")] = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """Events `log` (`id` = the byte at which the next one begins), and at last `end`."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
    path = log_path(settings.runs_dir, job.id)
    start = after if last_event_id is None else last_event_id
    if JobState(job.state) in TERMINAL and read_log(path, start, is_over=True).next_offset <= start:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    body = follow_log(path, start, poll_s=settings.stream_poll_s, watching=streams.watch_end(job))
    return respond(body, streams.place(viewer))
