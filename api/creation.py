"""Makes jobs: the rows are read, the files checked, the job queued, and only the first and last in a transaction.

To check a file may take minutes. Meanwhile no row is locked, since a parent's worker must be able to renew its lease,
and no transaction stands open, since Postgres breaks off one that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from api import admission
from api.admission import Draft
from api.facts import portray_job
from api.schemas import JobObject
from api.settings import Settings
from api.store import jobs, usage
from api.store.database import Database, Session
from api.store.idempotency import Once


def create_job(database: Database, settings: Settings, once: Once, draft: Callable[[Session], Draft]) -> JobObject:
    """The new job, or the answer that the same request was given before. Raises what `api.admission` raises."""
    with database.transaction() as session:
        stored = once.find_answer(session)
        if stored is not None:
            return JobObject.model_validate(stored)
        found = draft(session)
    new = admission.plan_job(found, settings)
    with database.transaction() as session:
        stored = once.find_answer(session)  # the same request may have come again meanwhile, and been quicker
        if stored is not None:
            return JobObject.model_validate(stored)
        admission.hold_sources(session, once.tenant, new)
        usage.check_live_jobs(session, once.tenant, most=settings.max_live_jobs)
        answer = portray_job(session, jobs.create_job(session, once.tenant, new), settings)
        once.keep_answer(session, HTTPStatus.CREATED, answer.model_dump(mode="json"))
    return answer
