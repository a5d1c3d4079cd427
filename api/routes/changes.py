"""What may be done to a job besides stopping it: change its labels, and begin another from its checkpoints."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Response

from api import admission, creation
from api.deps import DatabaseDep, DispatcherDep, IdempotencyKeyDep, SettingsDep, WriterDep
from api.errors import PreconditionFailed
from api.etags import is_required
from api.facts import etag_of, portray_job
from api.pace import slow
from api.schemas import ForkCreate, JobObject, JobPatch, Problem
from api.store import jobs
from api.store.idempotency import Once

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["Jobs"])
IF_MATCH = (
    "Change it only if nobody has since the answer with this ETag: its name, metadata and priority are the same, and "
    "so is whether it lives, is paused or has ended. What a worker does meanwhile is no change."
)
IfMatch = Annotated[str | None, Header(description=IF_MATCH)]


@router.patch(
    "/{job_id}",
    summary="Change a job's name, metadata or priority",
    responses={412: {"model": Problem, "description": "The job has changed since"}},
)
def update_job(
    job_id: str,
    body: JobPatch,
    response: Response,
    caller: WriterDep,
    database: DatabaseDep,
    settings: SettingsDep,
    if_match: IfMatch = None,
) -> JobObject:
    """Changes what is given and leaves the rest; a higher priority goes first among the waiting jobs."""
    changes = body.model_dump(exclude_unset=True)
    if "metadata" in changes:
        changes["metadata"] = changes["metadata"] or {}
    with database.transaction() as session:
        job = jobs.lock_job(session, caller.tenant, job_id)
        etag = etag_of(portray_job(session, job, settings))
        if not is_required(etag, if_match):
            raise PreconditionFailed(f"The job's ETag is {etag}, no longer {if_match}; read it again.")
        jobs.change_job(session, job, changes)
        session.flush()
        answer = portray_job(session, job, settings)
    response.headers["ETag"] = etag_of(answer)
    return answer


@router.post("/{job_id}/fork", summary="Begin a new job from a checkpoint", status_code=HTTPStatus.CREATED)
@slow
def fork_job(
    job_id: str,
    body: ForkCreate,
    response: Response,
    caller: WriterDep,
    database: DatabaseDep,
    dispatcher: DispatcherDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKeyDep = None,
) -> JobObject:
    """A job like this one that starts at one of its checkpoints, with the changes that the body names.

    The checkpoint is kept for as long as the new job is on record.
    """
    text = f"POST /v1/fine_tuning/jobs/{job_id}/fork {body.model_dump_json(exclude_unset=True)}"
    draft_fork = partial(admission.draft_fork, tenant=caller.tenant, job_id=job_id, body=body, settings=settings)
    answer = creation.create_job(database, settings, Once.of(caller.tenant, idempotency_key, text), draft_fork)
    dispatcher.ring()
    response.headers["Location"] = f"{router.prefix}/{answer.id}"
    return answer
