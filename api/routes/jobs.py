"""Jobs: create, read, list, and the three things one may ask of a job that lives."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from api import planning
from api.deps import (
    After,
    CallerDep,
    DatabaseDep,
    DispatcherDep,
    IdempotencyKeyDep,
    Limit,
    OrderDep,
    SettingsDep,
    ViewerDep,
    admit,
)
from api.schemas import JobCreate, JobEventObject, JobFacts, JobObject, ListOf, StreamTicket, epoch, job_object
from api.settings import Settings
from api.store import artifacts, events, files, idempotency, jobs, keys, metrics
from api.store.database import Session
from api.store.idempotency import Answer
from api.store.jobs import NewJob
from api.store.tables import Job

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Jobs"])
Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


@router.post("", summary="Create a job", status_code=HTTPStatus.CREATED)
def create_job(
    body: JobCreate,
    response: Response,
    caller: CallerDep,
    database: DatabaseDep,
    dispatcher: DispatcherDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKeyDep = None,
) -> JobObject:
    """Checks the whole request, queues the job and answers with every default and "auto" resolved."""
    request = hashlib.sha256(f"POST /v1/fine_tuning/jobs {body.model_dump_json()}".encode()).hexdigest()
    with database.transaction() as session:
        if idempotency_key:
            stored = idempotency.find_answer(session, caller.tenant, idempotency_key, request)
            if stored:
                return JobObject.model_validate(stored.body)
        new = _new_job(session, caller.tenant, body, settings)
        row = jobs.create_job(session, caller.tenant, new)
        answer = _objects(session, [row], settings)[0]
        if idempotency_key:
            kept = Answer(status=HTTPStatus.CREATED, body=answer.model_dump(mode="json"))
            idempotency.keep_answer(session, caller.tenant, idempotency_key, request, kept)
    dispatcher.ring()
    response.headers["Location"] = f"{router.prefix}/{answer.id}"
    return answer


@router.get("", summary="List jobs")
def list_jobs(
    caller: CallerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    after: After = None,
    limit: Limit = 20,
    order: OrderDep = "desc",
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
) -> ListOf[JobObject]:
    """Your jobs, newest first."""
    with database.transaction() as session:
        page = jobs.list_jobs(session, caller.tenant, after=after, limit=limit, order=order, status=status)
        data = _objects(session, page.rows, settings)
    return ListOf(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{job_id}", summary="Retrieve a job", responses={304: {"description": "Not modified"}})
def retrieve_job(
    job_id: str,
    response: Response,
    caller: CallerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> JobObject:
    """One job; its ETag changes with every event and step."""
    with database.transaction() as session:
        row = jobs.get_job(session, caller.tenant, job_id)
        answer = _objects(session, [row], settings)[0]
    etag = f'"{hashlib.sha256(answer.model_dump_json(exclude={"estimated_finish"}).encode()).hexdigest()[:32]}"'
    if if_none_match == etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})  # type: ignore[return-value]
    response.headers["ETag"] = etag
    return answer


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(job_id: str, caller: CallerDep, database: DatabaseDep, settings: SettingsDep) -> JobObject:
    """Stops a job for good. It is `cancelled` only when its trainer is gone; its checkpoints stay."""
    with database.transaction() as session:
        row = jobs.request_cancel(session, caller.tenant, job_id)
        return _objects(session, [row], settings)[0]


@router.post("/{job_id}/pause", summary="Pause a job")
def pause_job(job_id: str, caller: CallerDep, database: DatabaseDep, settings: SettingsDep) -> JobObject:
    """Stops a job at a checkpoint and frees its slot. It is `paused` only when its trainer is gone."""
    with database.transaction() as session:
        row = jobs.request_pause(session, caller.tenant, job_id)
        return _objects(session, [row], settings)[0]


@router.post("/{job_id}/resume", summary="Resume a paused job")
def resume_job(
    job_id: str, caller: CallerDep, database: DatabaseDep, dispatcher: DispatcherDep, settings: SettingsDep
) -> JobObject:
    """Queues a paused job again; it goes on from its newest checkpoint under the same id."""
    with database.transaction() as session:
        row = jobs.resume_job(session, caller.tenant, job_id)
        answer = _objects(session, [row], settings)[0]
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
    data = [JobEventObject.of(row) for row in page.rows]
    return ListOf(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.post("/{job_id}/stream_ticket", summary="Open a job's streams to a browser")
def create_stream_ticket(job_id: str, caller: CallerDep, database: DatabaseDep, settings: SettingsDep) -> StreamTicket:
    """A short-lived ticket for `?ticket=` on this job's streams and downloads, where no header can be sent."""
    with database.transaction() as session:
        job = jobs.get_job(session, caller.tenant, job_id)
        ticket, expires_at = keys.create_ticket(session, job, lifetime_s=settings.ticket_s)
    return StreamTicket(ticket=ticket, expires_at=epoch(expires_at))


def _new_job(session: Session, tenant: str, body: JobCreate, settings: Settings) -> NewJob:
    planning.find_model(settings.models_dir, body.model)
    asked = body.method.reinforcement
    num_rows = 0
    for param in ("validation_file", "training_file"):
        file_id = getattr(body, param)
        if file_id is not None:
            files.get_file(session, tenant, file_id, param=param)
            num_rows = planning.check_file(files.file_path(settings.files_dir, file_id), asked, param=param)
    plan = planning.plan_method(asked, num_rows=num_rows)
    return NewJob(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed if body.seed is not None else secrets.randbelow(2**31),
        method=plan.method,
        num_steps=plan.num_steps,
        metadata=body.metadata or {},
    )


def _objects(session: Session, rows: Sequence[Job], settings: Settings) -> list[JobObject]:
    ids = [row.id for row in rows]
    latest = metrics.latest_values(session, ids)
    places = jobs.queue_places(session, rows, worker_silent_s=settings.lease_s)
    finals = artifacts.final_checkpoint_ids(session, ids)
    return [
        job_object(
            row,
            JobFacts(
                latest=latest.get((row.id, "train"), {}),
                latest_evaluation=latest.get((row.id, "evaluation"), {}),
                place=places.get(row.id),
                final_checkpoint_id=finals.get(row.id),
            ),
        )
        for row in rows
    ]
