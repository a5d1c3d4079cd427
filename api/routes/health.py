"""Whether the process is up, and whether jobs can be taken and run."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from api.deps import PartsDep
from api.schemas import Health, Readiness

router = APIRouter(tags=["Health"])
NEEDED = {"jobs": None, "traffic": ("database", "storage")}
"""The parts that each purpose needs; None for all of them."""


@router.get("/healthz", summary="The process is up", response_model_exclude_none=True)
async def check_health() -> Health:
    """Answers without asking anything else, a thread included."""
    return Health()


@router.get(
    "/readyz",
    summary="Jobs can be taken and run",
    responses={503: {"model": Readiness, "description": "Something is missing; the body says what"}},
)
async def check_readiness(
    response: Response,
    parts: PartsDep,
    purpose: Annotated[
        Literal["jobs", "traffic"],
        Query(alias="for", description="traffic: only what the API needs to answer, database and storage."),
    ] = "jobs",
) -> Readiness:
    """Asks the database, the broker, the storage and for a worker's sign of life; 503 with what is wrong.

    A load balancer asks `?for=traffic`: without a worker the API still takes jobs and shows runs. Each part is asked
    once a second at most.
    """
    checks = await parts.check(NEEDED[purpose])
    is_ready = all(word == "ok" for word in checks.values())
    response.status_code = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status="ok" if is_ready else "unavailable", checks=checks)
