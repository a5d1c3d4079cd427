"""The platform as a whole: the queue, what a tenant has used, and figures for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.deps import AdminDep, DatabaseDep, InstrumentsDep, ReaderDep, SettingsDep
from api.instruments import CONTENT_TYPE
from api.lifecycle import JobState
from api.schemas import LeaseObject, ListOf, ModelUsage, QueuedJob, QueueState, Usage, WorkerObject, epoch
from api.store import jobs, usage

router = APIRouter(tags=["Platform"])
Epoch = Annotated[int | None, Query(ge=0, lt=2**32, description="Seconds since the epoch.")]


@router.get("/v1/queue", summary="Look at the queue")
def retrieve_queue(caller: ReaderDep, database: DatabaseDep, settings: SettingsDep) -> QueueState:
    """How busy the workers are with everybody's jobs, and where yours stand (the first hundred)."""
    with database.transaction() as session:
        busyness = usage.read_busyness(session, worker_silent_s=settings.lease_s)
        waiting = usage.waiting_jobs(session, caller.tenant)
        places = jobs.queue_places(session, waiting, worker_silent_s=settings.lease_s)
    return QueueState(
        workers=busyness.workers,
        slots=busyness.slots,
        running=busyness.running,
        waiting=busyness.waiting,
        data=[
            QueuedJob(
                id=job.id,
                name=job.name,
                state=JobState(job.state),
                position=places[job.id].position,
                priority=job.priority,
                reason=places[job.id].reason,
            )
            for job in waiting
        ],
    )


@router.get("/v1/workers", summary="Look at the workers")
def list_workers(caller: ReaderDep, database: DatabaseDep, settings: SettingsDep) -> ListOf[WorkerObject]:
    """The workers that gave a sign of life within a day, and the jobs that they hold; other tenants' without a name."""
    with database.transaction() as session:
        found = usage.read_workers(session, worker_silent_s=settings.lease_s)
    data = [
        WorkerObject(
            name=each.beat.name,
            slots=each.beat.slots,
            seen_at=epoch(each.beat.seen_at),
            is_alive=each.is_alive,
            leases=[
                LeaseObject(
                    fine_tuning_job_id=job.id if job.tenant == caller.tenant else None,
                    state=JobState(job.state),
                    attempt=job.fence,
                    lease_until=epoch(job.lease_until),
                )
                for job in each.jobs
                if job.lease_until is not None
            ],
        )
        for each in found
    ]
    return ListOf(
        data=data,
        has_more=False,
        first_id=data[0].name if data else None,
        last_id=data[-1].name if data else None,
    )


@router.get("/v1/usage", summary="Read what you have used")
def retrieve_usage(
    caller: ReaderDep, database: DatabaseDep, created_after: Epoch = None, created_before: Epoch = None
) -> Usage:
    """Tokens, steps and time of the jobs created in between, by base model, and the bytes that are kept."""
    with database.transaction() as session:
        states = usage.count_by_state(session, caller.tenant, created_after, created_before)
        models = usage.sum_by_model(session, caller.tenant, created_after, created_before)
        file_bytes = usage.stored_file_bytes(session, caller.tenant)
        checkpoint_bytes = usage.stored_checkpoint_bytes(session, caller.tenant)
    return Usage(
        created_after=created_after,
        created_before=created_before,
        num_jobs=sum(states.values()),
        jobs=states,
        trained_tokens=sum(model["trained_tokens"] for model in models),
        steps=sum(model["steps"] for model in models),
        running_s=sum(model["running_s"] for model in models),
        stored_file_bytes=file_bytes,
        stored_checkpoint_bytes=checkpoint_bytes,
        models=[ModelUsage(**model) for model in models],
    )


@router.get(
    "/metrics",
    summary="Read figures for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def scrape_metrics(
    caller: AdminDep, database: DatabaseDep, settings: SettingsDep, instruments: InstrumentsDep
) -> Response:
    """Requests of this API process; jobs and workers of the whole platform. Wants a key with the scope `admin`."""
    with database.transaction() as session:
        busyness = usage.read_busyness(session, worker_silent_s=settings.lease_s)
    text = instruments.render(jobs=busyness.jobs, workers=busyness.workers, slots=busyness.slots)
    return Response(text, media_type=CONTENT_TYPE)
