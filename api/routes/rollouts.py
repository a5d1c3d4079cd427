"""Look inside: recorded responses, their tokens, what was masked and what other thresholds would have masked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api import density, inspection
from api.deps import After, DatabaseDep, Limit, SettingsDep, ViewerDep, WriterDep, admit
from api.inspection import MaskedSort
from api.pace import slow
from api.schemas import ListOf, MaskedTokens, MaskSimulation, RolloutDetail, RolloutObject, RolloutPatch, TokenQuadrants
from api.simulation import Scope
from api.store import jobs, rollouts
from api.store.recordings import recording_path
from api.store.rollouts import RolloutFilter, Sort

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Look inside"])
Step = Annotated[int | None, Query(ge=1, lt=2**31, description="A recorded step; the newest one when omitted.")]


@router.get("/rollouts", summary="List recorded responses")
def list_rollouts(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    step: Annotated[int | None, Query(ge=1, lt=2**31, description="Only this step; all when omitted.")] = None,
    min_reward: Annotated[float | None, Query(allow_inf_nan=False, description="Only rewards from here on.")] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False, description="Only rewards up to here.")] = None,
    masked: Annotated[bool | None, Query(description="Only those with, or without, a silenced token.")] = None,
    text: Annotated[
        str | None,
        Query(
            max_length=200,
            description='Only those whose prompt or response has these words; "a phrase", `or`, `-without`.',
        ),
    ] = None,
    sort: Annotated[Sort, Query(description="A leading minus sorts from the largest.")] = "-step",
    after: After = None,
    limit: Limit = 20,
) -> ListOf[RolloutObject]:
    """The responses of every step, newest step first; none where config.record_rollouts_every is 0."""
    admit(viewer, job_id)
    wanted = RolloutFilter(step=step, min_reward=min_reward, max_reward=max_reward, masked=masked, text=text)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        page = rollouts.list_rollouts(session, job, wanted, sort=sort, after=after, limit=limit)
    return ListOf.of([RolloutObject.of(row) for row in page.rows], has_more=page.has_more)


@router.get("/rollouts/{rollout_id}", summary="Read a recorded response token by token")
@slow
def retrieve_rollout(
    job_id: str, rollout_id: str, viewer: ViewerDep, database: DatabaseDep, settings: SettingsDep
) -> RolloutDetail:
    """Every token: its probability, entropy and advantage, and which of the mask's three conditions it met."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        row = rollouts.get_rollout(session, job, rollout_id)
    return inspection.rollout_detail(recording_path(settings.artifacts_dir, job.id, row.step), row)


@router.patch("/rollouts/{rollout_id}", summary="Pin a recorded response")
def update_rollout(
    job_id: str, rollout_id: str, body: RolloutPatch, caller: WriterDep, database: DatabaseDep
) -> RolloutObject:
    """Keeps the step of this response when the oldest recorded steps are dropped by size, or no longer."""
    with database.transaction() as session:
        job = jobs.lock_job(session, caller.tenant, job_id)
        row = rollouts.pin_rollout(session, job, rollout_id, pinned=body.pinned)
        return RolloutObject.of(row)


@router.get("/masked-tokens", summary="List the silenced tokens of a step")
@slow
def list_masked_tokens(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    step: Step = None,
    sort: Annotated[MaskedSort, Query(description="The first of these orders is by what was withheld.")] = "-grad_norm",
    limit: Limit = 20,
) -> MaskedTokens:
    """Which tokens were silenced, ranked, with the text around them and the most frequent ones."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        found = rollouts.find_step(session, job, step)
        ids = rollouts.rollout_ids(session, job, found)
    path = recording_path(settings.artifacts_dir, job.id, found)
    return inspection.masked_tokens(path, found, ids, sort=sort, limit=limit)


@router.get("/mask-simulation", summary="Ask what other thresholds would have silenced")
@slow
def simulate_mask(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    settings: SettingsDep,
    step: Step = None,
    tau_p: Annotated[
        float | None, Query(gt=0.0, lt=1.0, description="Below it a token is rare; the run's own when omitted.")
    ] = None,
    entropy_quantile: Annotated[
        float | None, Query(gt=0.0, lt=1.0, description="The quantile of H that is tau_h; the run's own when omitted.")
    ] = None,
    entropy_scope: Annotated[Scope | None, Query(description="The run's own when omitted.")] = None,
    limit: Limit = 20,
) -> MaskSimulation:
    """The mask of a recorded step under other thresholds, recomputed from the p, H and A of its tokens.

    What is omitted stays as the run had it, so with nothing given the answer is the run's own mask. Steps between the
    full records answer up to tau_p 0.05, or the run's own where that is larger; over all tokens they know tau_h
    within the `error` that each mini-batch states.
    """
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        found = rollouts.find_step(session, job, step)
        ids = rollouts.rollout_ids(session, job, found)
    thresholds = inspection.choose_thresholds(
        job, tau_p=tau_p, entropy_quantile=entropy_quantile, entropy_scope=entropy_scope
    )
    path = recording_path(settings.artifacts_dir, job.id, found)
    return inspection.mask_simulation(path, job, found, ids, thresholds, limit=limit)


@router.get("/quadrants", summary="Count a step's tokens by probability and entropy")
@slow
def count_quadrants(
    job_id: str, viewer: ViewerDep, database: DatabaseDep, settings: SettingsDep, step: Step = None
) -> TokenQuadrants:
    """Every token of a fully recorded step on logarithmic axes, split by the sign of its advantage, and the thresholds.

    Full records are written every config.record_rollouts_every steps.
    """
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        found = rollouts.find_step(session, job, step, every=inspection.train_config(job).record_rollouts_every)
    return density.token_quadrants(recording_path(settings.artifacts_dir, job.id, found), job.id, found)
