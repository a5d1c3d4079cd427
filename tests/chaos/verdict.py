"""What must hold when a storm is over, read from the rows and the files alone: each breach is one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sqlalchemy import select

from api.lifecycle import TERMINAL, JobState
from api.store import artifacts
from api.store.database import Session
from api.store.tables import Checkpoint, Job, JobEvent, StepMetrics
from stapo_core.folders import Rejected, verify
from tests.chaos import audit
from tests.chaos.site import NUM_ROWS, Site
from tests.chaos.trainer import follow, prompts_of

NUM_PROMPTS = 2


def breaches(
    site: Site,
    accepted: Sequence[str] = (),
    asked: Sequence[str] = (),
    cancelled: Sequence[str] = (),
    paused: Sequence[str] = (),
) -> list[str]:
    """Every promise that was broken. `asked` were to be cancelled; of `cancelled` and `paused` the service said so."""
    found = audit.ghost_writes(site.database)
    with site.database.transaction() as session:
        jobs = list(session.scalars(select(Job).order_by(Job.number)))
        known = {job.id for job in jobs}
        found += [f"{job_id} was accepted and is gone" for job_id in accepted if job_id not in known]
        for job in jobs:
            if job.state == JobState.CANCELLED and job.id not in asked:
                found.append(f"{job.id}: cancelled, and nobody asked for it")
            if job.state != JobState.CANCELLED and job.id in cancelled:
                found.append(f"{job.id}: the cancel was accepted and it is {job.state}")
            if job.id in paused and not set(_states(session, job)) & {JobState.PAUSING, JobState.PAUSED}:
                found.append(f"{job.id}: the pause was accepted and it was never told of")
            found += [f"{job.id}: {breach}" for breach in breaches_of(session, site, job)]
    return found


def breaches_of(session: Session, site: Site, job: Job) -> Iterator[str]:
    """What is wrong with one job, now."""
    if job.state not in TERMINAL:
        yield f"still {job.state} at step {job.step}, attempt {job.fence}"
    elif job.state == JobState.FAILED:
        yield f"failed: {job.error}"
    elif site.trainer_of(job.id) is not None:
        yield f"{job.state}, and its trainer lives"
    yield from _of_steps(session, job)
    yield from _of_checkpoints(session, site, job)
    yield from _of_events(session, job)


def _of_steps(session: Session, job: Job) -> Iterator[str]:
    """Lost, doubled or mixed steps: a step's value follows from the one before it, whoever did it."""
    query = select(StepMetrics).where(StepMetrics.job_id == job.id, StepMetrics.kind == "train")
    rows = list(session.scalars(query.order_by(StepMetrics.step)))
    steps = [row.step for row in rows]
    wanted = list(range(1, (job.num_steps if job.state == JobState.SUCCEEDED else job.step) + 1))
    if steps != wanted:
        yield f"{job.state} with the steps {_ranges(steps)} of {len(wanted)}"
    value = 0
    for row in rows:
        prompts = prompts_of(row.step, num_prompts=NUM_PROMPTS, num_rows=NUM_ROWS)
        value = follow(value, prompts, int(row.values["chain/salt"]))
        if value != row.values["chain/value"]:
            yield f"step {row.step} does not follow from the step before it"
            return


def _of_checkpoints(session: Session, site: Site, job: Job) -> Iterator[str]:
    """Whole, and of the steps that the record tells."""
    rows = list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)))
    if job.state == JobState.SUCCEEDED and not (rows and rows[-1].final and rows[-1].step == job.num_steps):
        yield "succeeded without a final checkpoint"
    for row in rows:
        folder = artifacts.folder_path(site.home / "artifacts", job.id, row.step)
        try:
            manifest = verify(folder)
        except Rejected as rejection:
            yield f"the checkpoint of step {row.step} can be downloaded and is not whole: {rejection}"
            continue
        if [file.model_dump() for file in manifest.files] != row.files:
            yield f"the checkpoint of step {row.step} holds other files than its row says"
        told = session.get(StepMetrics, (job.id, "train", row.step))
        value = json.loads((folder / "model.json").read_bytes())["value"]
        if told is None or told.values["chain/value"] != value:
            yield f"the checkpoint of step {row.step} is of another lineage than the record"


def _of_events(session: Session, job: Job) -> Iterator[str]:
    """Each attempt and each end of one is told, in an unbroken chain of states.

    No attempt lost more steps than lie between two checkpoints, or found one half-written; no pause was forgotten.
    """
    events = list(session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)))
    moves = [event for event in events if event.kind == "state"]
    state = JobState.QUEUED.value
    for move in moves:
        if move.data["from"] != state:
            yield f"it became {move.data['to']} from {move.data['from']} while it was {state}"
        if (state, move.data["to"]) == (JobState.PAUSING, JobState.RECOVERING):
            yield f"a pause was forgotten: {move.message}"
        state = move.data["to"]
    if state != job.state:
        yield f"its events end in {state} and its row in {job.state}"
    num_attempts = sum(move.data["to"] == JobState.STARTING for move in moves)
    if num_attempts != job.fence:
        yield f"{num_attempts} attempts are told of and there were {job.fence}"
    every = job.method["reinforcement"]["config"]["checkpoint"]["every_steps"]
    for event in events:
        if event.data.get("lost_steps", 0) > every:
            yield f"{event.data['lost_steps']} steps were lost, and every {every} there is a checkpoint"
        if event.kind == "checkpoint_rejected":
            yield f"a checkpoint was found half-written: {event.message}"


def _states(session: Session, job: Job) -> list[str]:
    """Every state that it came into."""
    query = select(JobEvent.data["to"].as_string()).where(JobEvent.job_id == job.id, JobEvent.kind == "state")
    return list(session.scalars(query))


def _ranges(steps: Sequence[int]) -> str:
    """1-4, 7, 9-12."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and step == parts[-1][-1] + 1:
            parts[-1].append(step)
        else:
            parts.append([step])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts) or "none"
