"""Jobs: create, read, list, and the three things one may ask of a job that lives."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from api import admission, creation
from api.deps import (
    After,
    DatabaseDep,
    DispatcherDep,
    IdempotencyKeyDep,
    Limit,
    OrderDep,
    ReaderDep,
    SettingsDep,
    TicketMakerDep,
    ViewerDep,
    WriterDep,
    admit,
)
from api.etags import is_named
from api.facts import etag_of, portray_job, portray_jobs
from api.pace import slow
from api.schemas import JobCreate, JobEventObject, JobObject, JobPreview, ListOf, StreamTicket, epoch
from api.store import events, jobs, keys
from api.store.idempotency import Once
from api.store.jobs import JobFilter

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Jobs"])
_METADATA = re.compile(r"metadata\[(.{1,64})\]")
METADATA: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Only jobs with these pairs: `metadata[key]=value`.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


@router.post(
    "",
    summary="Create a job",
    status_code=HTTPStatus.CREATED,
    responses={200: {"model": JobPreview, "description": "A dry run: nothing was queued"}},
)
@slow
def create_job(
    body: JobCreate,
    response: Response,
    caller: WriterDep,
    database: DatabaseDep,
    dispatcher: DispatcherDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKeyDep = None,
    dry_run: Annotated[bool, Query(description="Answers with the resolved config and an estimate; 200.")] = False,
) -> JobObject | JobPreview:
    """Checks the whole request, queues the job and answers with every default and "auto" resolved."""
    if dry_run:
        with database.transaction() as session:
            draft = admission.draft_job(session, caller.tenant, body, settings)
        response.status_code = HTTPStatus.OK
        return admission.preview(admission.plan_job(draft, settings), settings)
    once = Once.of(caller.tenant, idempotency_key, f"POST {router.prefix} {body.model_dump_json()}")
    draft_job = partial(admission.draft_job, tenant=caller.tenant, body=body, settings=settings)
    answer = creation.create_job(database, settings, once, draft_job)
    dispatcher.ring()
    response.headers["Location"] = f"{router.prefix}/{answer.id}"
    return answer


@router.get("", summary="List jobs", openapi_extra={"parameters": [METADATA]})
def list_jobs(
    request: Request,
    caller: ReaderDep,
    database: DatabaseDep,
    settings: SettingsDep,
    after: After = None,
    limit: Limit = 20,
    order: OrderDep = "desc",
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
    model: Annotated[str | None, Query(description="Only jobs on this base model.")] = None,
) -> ListOf[JobObject]:
    """Your jobs, newest first."""
    matches = ((_METADATA.fullmatch(name), value) for name, value in request.query_params.items())
    wanted = JobFilter(status=status, model=model, metadata={match[1]: value for match, value in matches if match})
    with database.transaction() as session:
        page = jobs.list_jobs(session, caller.tenant, wanted, after=after, limit=limit, order=order)
        data = portray_jobs(session, page.rows, settings)
    return ListOf.of(data, has_more=page.has_more)


@router.get("/{job_id}", summary="Retrieve a job", responses={304: {"description": "Not modified"}})
def retrieve_job(
    job_id: str,
    response: Response,
    viewer: ViewerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    if_none_match: Annotated[str | None, Header(description="Answers 304 when it is the ETag.")] = None,
) -> JobObject:
    """One job; its ETag changes with all that is told of it, save for guesses of when something will be."""
    admit(viewer, job_id)
    with database.transaction() as session:
        row = jobs.get_job(session, viewer.tenant, job_id)
        answer = portray_job(session, row, settings)
    etag = etag_of(answer)
    if is_named(etag, if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})  # type: ignore[return-value]
    response.headers["ETag"] = etag
    return answer


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(job_id: str, caller: WriterDep, database: DatabaseDep, settings: SettingsDep) -> JobObject:
    """Stops a job for good. It is `cancelled` only when its trainer is gone; its checkpoints stay."""
    with database.transaction() as session:
        row = jobs.request_cancel(session, caller.tenant, job_id)
        return portray_job(session, row, settings)


@router.post("/{job_id}/pause", summary="Pause a job")
def pause_job(job_id: str, caller: WriterDep, database: DatabaseDep, settings: SettingsDep) -> JobObject:
    """Stops a job at a checkpoint and frees its slot. It is `paused` only when its trainer is gone."""
    with database.transaction() as session:
        row = jobs.request_pause(session, caller.tenant, job_id)
        return portray_job(session, row, settings)


@router.post("/{job_id}/resume", summary="Resume a paused job")
def resume_job(
    job_id: str, caller: WriterDep, database: DatabaseDep, dispatcher: DispatcherDep, settings: SettingsDep
) -> JobObject:
    """Queues a paused job again; it goes on from its newest checkpoint under the same id."""
    with database.transaction() as session:
        row = jobs.resume_job(session, caller.tenant, job_id)
        answer = portray_job(session, row, settings)
    dispatcher.ring()
    return answer


@router.get("/{job_id}/events", summary="List a job's events")
def list_job_events(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    after: After = None,
    limit: Limit = 20,
    order: OrderDep = "desc",
) -> ListOf[JobEventObject]:
    """What happened to the job, newest first."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        page = events.list_events(session, job, after=after, limit=limit, order=order)
    return ListOf.of([JobEventObject.of(row) for row in page.rows], has_more=page.has_more)


@router.post("/{job_id}/stream_ticket", summary="Open a job's streams to a browser")
def create_stream_ticket(
    job_id: str, caller: TicketMakerDep, database: DatabaseDep, settings: SettingsDep
) -> StreamTicket:
    """A short-lived ticket for `?ticket=` on what is read of this job: itself, its streams and downloads.

    It is a secret and shown once, so no answer is kept: every call makes another, whatever its Idempotency-Key.
    """
    with database.transaction() as session:
        job = jobs.get_job(session, caller.tenant, job_id)
        ticket, expires_at = keys.create_ticket(session, job, caller, lifetime_s=settings.ticket_s)
    return StreamTicket(ticket=ticket, expires_at=epoch(expires_at))
