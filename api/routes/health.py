"""Whether the process is up, and whether jobs can be taken and run."""

from __future__ import annotations

import os
from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter, Response

from api.deps import DatabaseDep, DispatcherDep, SettingsDep
from api.schemas import Health, Readiness
from api.settings import Settings
from api.store import leases
from api.store.database import Database

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="The process is up", response_model_exclude_none=True)
async def check_health() -> Health:
    """Answers without asking anything else, a thread included."""
    return Health()


@router.get(
    "/readyz",
    summary="Jobs can be taken and run",
    responses={503: {"model": Readiness, "description": "Something is missing; the body says what"}},
)
def check_readiness(
    response: Response, database: DatabaseDep, dispatcher: DispatcherDep, settings: SettingsDep
) -> Readiness:
    """Asks the database, the broker, the storage and for a worker's sign of life; 503 with the reasons."""
    checks = {
        "database": _word(database.ping),
        "broker": _word(dispatcher.ping),
        "storage": _word(lambda: _check_storage(settings)),
        "worker": _word(lambda: _check_worker(database, settings)),
    }
    is_ready = all(word == "ok" for word in checks.values())
    response.status_code = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status="ok" if is_ready else "unavailable", checks=checks)


def _word(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # whatever is wrong is the answer
        return str(error).splitlines()[0] or type(error).__name__
    return "ok"


def _check_storage(settings: Settings) -> None:
    settings.files_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(settings.files_dir, os.W_OK):
        raise RuntimeError(f"{settings.files_dir} cannot be written")


def _check_worker(database: Database, settings: Settings) -> None:
    with database.transaction() as session:
        if not leases.is_worker_alive(session, silent_s=settings.lease_s):
            raise RuntimeError(f"no worker gave a sign of life in the last {settings.lease_s:.0f} s")
