"""Graders: checked and tried before a job is spent on them."""

from __future__ import annotations

from fastapi import APIRouter

from api import grading
from api.deps import GraderDeskDep, SettingsDep, WriterDep
from api.schemas import (
    GraderErrors,
    GraderRun,
    GraderRunMetadata,
    GraderRunResult,
    GraderValidate,
    GraderValidated,
)

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"])


@router.post("/validate", summary="Check a grader")
def validate_grader(body: GraderValidate, caller: WriterDep, settings: SettingsDep) -> GraderValidated:
    """The grader with its defaults, and the fields that it will read of each row."""
    fields = grading.check(body.grader, allows_user_code=settings.allows_user_code)
    return GraderValidated(grader=body.grader, item_fields=fields)


@router.post("/run", summary="Try a grader on one response")
def run_grader(body: GraderRun, caller: WriterDep, desk: GraderDeskDep) -> GraderRunResult:
    """The reward that a response to `item` would get."""
    outcome = desk.run(body.grader, body.item, body.model_sample)
    name = body.grader.name
    return GraderRunResult(
        reward=outcome.reward,
        metadata=GraderRunMetadata(
            errors=GraderErrors(other_error=outcome.error is not None, other_error_kind=outcome.error),
            execution_time=outcome.seconds,
            name=name,
            scores={name: outcome.reward},
            type=body.grader.type,
        ),
    )
