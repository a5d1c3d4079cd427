"""Graders: checked and tried before a job is spent on them."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from api import asking, grading, planning, probing
from api.asking import Ask, Asker, Reply
from api.deps import DatabaseDep, GraderDeskDep, RelayDep, SettingsDep, WriterDep
from api.errors import Unavailable
from api.pace import run_slow
from api.schemas import (
    GraderErrors,
    GraderProbe,
    GraderProbed,
    GraderRun,
    GraderRunMetadata,
    GraderRunResult,
    GraderValidate,
    GraderValidated,
    Reinforcement,
)
from api.schemas.completions import DEFAULT_TOKENS
from api.store import files
from api.store.completions import new_completion_id

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"])


@router.post("/validate", summary="Check a grader")
def validate_grader(body: GraderValidate, caller: WriterDep, settings: SettingsDep) -> GraderValidated:
    """The grader with its defaults, and the fields that it will read of each row."""
    fields = grading.check(body.grader, allows_user_code=settings.allows_user_code)
    return GraderValidated(grader=body.grader, item_fields=fields)


@router.post("/run", summary="Try a grader on one response")
async def run_grader(body: GraderRun, caller: WriterDep, desk: GraderDeskDep) -> GraderRunResult:
    """The reward that a response to `item` would get."""
    outcome = await desk.run(body.grader, body.item, body.model_sample)
    name = body.grader.name
    sub_rewards = outcome.parts
    return GraderRunResult(
        reward=outcome.reward,
        metadata=GraderRunMetadata(
            errors=_errors(body.grader.type, outcome.error),
            execution_time=outcome.seconds,
            name=name,
            note=outcome.note,
            scores={name: outcome.reward},
            type=body.grader.type,
        ),
        sub_rewards=sub_rewards,
    )


@router.post("/probe", summary="Try a grader on a model's own responses")
async def probe_grader(
    body: GraderProbe,
    request: Request,
    caller: WriterDep,
    database: DatabaseDep,
    relay: RelayDep,
    settings: SettingsDep,
    desk: GraderDeskDep,
) -> GraderProbed:
    """Draws a few responses to problems of a file and scores them, before a job is spent on the grader.

    The first probe of a model takes seconds longer, since the model is loaded.
    """
    asker = Asker(caller, database, relay, settings)
    rows = await run_slow(partial(_choose_rows, body, asker))
    reply = await _draw(body, rows, request, asker)
    texts = [response["text"] for response in reply.responses]
    items = [row for row in rows for _ in range(body.num_samples)]
    verdicts = await desk.judge(body.grader, list(zip(items, texts, strict=True)))
    return probing.describe(body, rows, texts, verdicts)


def _choose_rows(body: GraderProbe, asker: Asker) -> list[dict[str, Any]]:
    settings = asker.settings
    grading.check(body.grader, allows_user_code=settings.allows_user_code)
    with asker.database.transaction() as session:
        file = files.get_file(session, asker.caller.tenant, body.training_file, param="training_file")
    path = files.file_path(settings.files_dir, body.training_file)
    asked = Reinforcement(grader=body.grader)
    num_rows = planning.check_file(path, asked, param="training_file", filename=file.filename)
    return probing.choose_rows(path, num_rows=num_rows, wanted=body.num_prompts, seed=body.seed)


async def _draw(body: GraderProbe, rows: list[dict[str, Any]], request: Request, asker: Asker) -> Reply:
    """The responses, row by row. Raises what `asking.follow` raises."""
    content = {
        "rows": [probing.prompt_of(row) for row in rows],
        "num_samples": body.num_samples,
        "temperature": body.temperature,
        "top_p": 1.0,
        "max_tokens": body.max_tokens or DEFAULT_TOKENS,
        "fits_context": body.max_tokens is None,
        "seed": body.seed,
        "stop": [],
        "logprobs": None,
        "is_live": False,
    }
    async with aclosing(asking.follow(Ask(body.model, content), asker, new_completion_id())) as news:
        async for each in news:
            if isinstance(each, Reply):
                return each
            if await request.is_disconnected():
                break
    raise Unavailable("The probe was given up: its reader has left.", code="no_answer")


def _errors(kind: str, error: str | None) -> GraderErrors:
    """The trouble in the dialect's list, where that has a word for it."""
    if error is None or kind not in ("score_model", "python"):
        return GraderErrors(other_error=error is not None, other_error_kind=error)
    if kind == "python":
        return GraderErrors(python_grader_runtime_error=True, python_grader_runtime_error_details=error)
    if error == "refusal":
        return GraderErrors(model_grader_refusal_error=True)
    if error in ("score_unreadable", "score_out_of_range", "reply_unreadable", "reply_too_long"):
        return GraderErrors(model_grader_parse_error=True, other_error_kind=error)
    return GraderErrors(model_grader_server_error=True, model_grader_server_error_details=error)
