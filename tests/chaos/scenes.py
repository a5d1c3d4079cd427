"""Single faults with a stage of their own: a full disk, a broker gone for good, a database that is away for long.

A scene starts from a running site, does one thing at one moment, and returns what it found and what was broken.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from api.lifecycle import TERMINAL, JobState
from api.store import artifacts
from api.store.tables import Checkpoint, Job, JobEvent
from stapo_core.folders import Rejected, verify
from stapo_core.spool import is_storage_full
from tests.chaos import verdict
from tests.chaos.faults import Fault, Hand
from tests.chaos.site import Site
from tests.chaos.trainer import POISON_SEED, POISONED_STEP, SLOW_SEED, SLOW_STEP_S

PATIENCE_S = 120.0


@dataclass
class Scene:
    """What a scene showed, a line for each point of it."""

    lines: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)


def wait_until(site: Site, is_so: Callable[[dict[str, Job]], bool], *, patience_s: float = PATIENCE_S) -> bool:
    """Whether the rows came to be so, with everything that dies started again meanwhile."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        site.revive()
        if is_so(site.jobs()):
            return True
        time.sleep(0.05)
    return False


class NotProvoked(Exception):
    """What was to be brought about did not come, so nothing was shown."""


def wait_for(site: Site, what: str, is_so: Callable[[dict[str, Job]], bool], *, patience_s: float = PATIENCE_S) -> None:
    """Returns when the rows are so. Raises NotProvoked."""
    if not wait_until(site, is_so, patience_s=patience_s):
        jobs = ", ".join(f"{job.id} {job.state} at step {job.step}" for job in site.jobs().values())
        raise NotProvoked(f"{what}: not in {patience_s:.0f} s ({jobs})")


def have_ended(rows: dict[str, Job]) -> bool:
    """Whether no job is left to do."""
    return bool(rows) and all(job.state in TERMINAL for job in rows.values())


# --- a full disk ----------------------------------------------------------------------------------------------------

FULL_AT = {
    "a checkpoint written aside": Fault("checkpoint_drafted", "raise ENOSPC @2"),
    "a checkpoint written aside, over the quota": Fault("checkpoint_drafted", "raise EDQUOT @3"),
    "a checkpoint before its rename": Fault("checkpoint_synced", "raise ENOSPC @2"),
    "the word that a checkpoint is whole": Fault("checkpoint_renamed", "raise ENOSPC @2"),
    "an old checkpoint's removal": Fault("pruning", "raise ENOSPC"),
    "a step's event": Fault("updated", "raise ENOSPC @5"),
    "the start of an attempt": Fault("spawning", "raise ENOSPC @2"),
    "the publication of a checkpoint": Fault("publishing", "raise ENOSPC @2"),
}
NUM_STEPS = 100
QUICK_SEED = 7
NUM_FEW_STEPS = 24  # enough where the job itself comes by the place


def fill_the_disk(site: Site) -> Scene:
    """A disk that is full at each of ten writes: the job pauses, keeps its checkpoint and goes on by one call."""
    scene, hand = Scene(), Hand(site, random.Random(0))
    for point, fault in FULL_AT.items():
        is_struck, is_slow = fault.phase == "spawning", fault.phase == "publishing"  # two in one batch leave no row
        hand.arm(fault)
        steps, seed = NUM_STEPS if is_struck else NUM_FEW_STEPS, SLOW_SEED if is_slow else QUICK_SEED
        job_id = site.create_job(num_steps=steps, seed=seed)
        if is_struck:
            os.kill(_wait_for_trainer(site, job_id), signal.SIGKILL)
        _expect_pause(site, scene, job_id, point)
        hand.disarm(fault)
        _expect_the_rest(site, scene, job_id, point)
    for point, limit in {"any byte of a trainer's": 1, "a trainer's file beyond 3,000 bytes": 3000}.items():
        job_id = site.create_job(num_steps=NUM_STEPS)
        pid = _wait_for_trainer(site, job_id)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        _expect_pause(site, scene, job_id, point)
        _expect_the_rest(site, scene, job_id, point)
    scene.breaches += verdict.breaches(site)
    return scene


def fill_a_small_disk(site: Site, sizes: list[int]) -> Scene:
    """Run directories on a tmpfs of 1 MiB that is filled, but for so many bytes, while a job runs. Wants root."""
    scene = Scene()
    runs = site.home / "runs"
    runs.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(runs)], check=True)
    try:
        for size in sizes:
            job_id = site.create_job(num_steps=NUM_STEPS)
            _wait_for_trainer(site, job_id)
            filler = runs / "filler"
            _fill(filler, spare=size)
            point = f"a tmpfs with {size:,} bytes left"
            _expect_pause(site, scene, job_id, point)
            filler.unlink()
            _expect_the_rest(site, scene, job_id, point)
        scene.breaches += verdict.breaches(site)
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)
    return scene


def _fill(path: Path, *, spare: int) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            if not is_storage_full(error):
                raise
        os.truncate(path, max(0, file.tell() - spare))


def _wait_for_trainer(site: Site, job_id: str) -> int:
    """The process id of the job's trainer when it has come behind step 3. Raises NotProvoked."""
    found: list[int | None] = [None]

    def look(rows: dict[str, Job]) -> bool:
        found[0] = site.trainer_of(job_id)
        return rows[job_id].step >= 4 and found[0] is not None

    wait_for(site, "a trainer at work", look)
    assert found[0] is not None
    return found[0]


def _expect_pause(site: Site, scene: Scene, job_id: str, point: str) -> None:
    wait_until(site, lambda rows: rows[job_id].state in {JobState.PAUSED, *TERMINAL}, patience_s=60.0)
    with site.database.transaction() as session:
        job = session.get_one(Job, job_id)
        newest = session.scalars(
            select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()).limit(1)
        ).one_or_none()
        told = session.scalars(
            select(JobEvent.message).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc()).limit(1)
        ).one()
    is_paused = (job.state, job.stop_reason) == (JobState.PAUSED, "storage_full") and "storage_full" in told
    try:
        step = verify(artifacts.folder_path(site.home / "artifacts", job_id, newest.step)).step if newest else None
    except Rejected as rejection:
        step = None
        scene.breaches.append(f"{point}: the last checkpoint is not whole: {rejection}")
    if not is_paused or step is None:
        scene.breaches.append(f"{point}: {job.state} ({job.stop_reason}), checkpoint of step {step}: {told}")
    whole = f"checkpoint of step {step} whole"
    scene.lines.append(f"{point}: {job.state} ({job.stop_reason}) after step {job.step}, {whole}")


def _expect_the_rest(site: Site, scene: Scene, job_id: str, point: str) -> None:
    if site.jobs()[job_id].state == JobState.PAUSED:
        site.client.resume_job(job_id)
    if not wait_until(site, lambda rows: rows[job_id].state == JobState.SUCCEEDED, patience_s=60.0):
        scene.breaches.append(f"{point}: resumed, and it is {site.jobs()[job_id].state}")


# --- a job that cannot be done -------------------------------------------------------------------------------------


def poison(site: Site, *, max_attempts: int) -> Scene:
    """Each attempt crashes in the same step, behind a checkpoint: the job fails, with the last error."""
    job_id = site.create_job(num_steps=NUM_STEPS, seed=POISON_SEED)
    wait_for(site, "the end of a job whose trainer always crashes", have_ended)
    with site.database.transaction() as session:
        job = session.get_one(Job, job_id)
        found = [f"{job_id}: {breach}" for breach in verdict.breaches_of(session, site, job)]
    error = job.error or {"code": None, "message": None, "evidence": []}
    line = f"a step that always crashes: {job.state} after {job.fence} attempts: {error['code']}: {error['message']}"
    scene = Scene([line], [breach for breach in found if "failed: " not in breach])
    last_words = f"step {POISONED_STEP} is poison"
    is_told = error["code"] == "trainer_crashed" and last_words in "\n".join(error["evidence"])
    if job.state != JobState.FAILED or not is_told:
        scene.breaches.append(f"{line}, where the trainer said '{last_words}': {error['evidence']}")
    if job.fence != 1 + max_attempts:  # the first one brought a checkpoint
        scene.breaches.append(f"{job.fence} attempts, where {max_attempts} without progress are the most")
    return scene


# --- servers that are away ------------------------------------------------------------------------------------------


def lose_the_broker(site: Site, *, num_jobs: int) -> Scene:
    """Valkey goes for good while jobs run and wait; more jobs come afterwards."""
    ids = [site.create_job(num_steps=60) for _ in range(num_jobs - 2)]
    wait_for(site, "jobs at work", lambda rows: any(job.step >= 3 for job in rows.values()))
    broker = site.processes["valkey"]
    broker.is_held_down = True
    site.valkey.process.kill()
    site.valkey.process.wait()
    ids += [site.create_job(num_steps=60) for _ in range(2)]
    wait_until(site, have_ended)
    ended = sum(job.state == JobState.SUCCEEDED for job_id, job in site.jobs().items() if job_id in ids)
    broker.is_held_down = False
    line = f"the broker gone for good during {num_jobs} jobs: {ended} of {num_jobs} finished"
    return Scene([line], verdict.breaches(site, ids))


def lose_the_database(site: Site, *, away_s: float, how: str) -> Scene:
    """Postgres is away in mid-job, stopped or frozen: no step is lost, and the same attempt goes on."""
    steps = int((away_s + 6.0) / SLOW_STEP_S)
    job_id = site.create_job(num_steps=steps, checkpoint_every=20, seed=SLOW_SEED)
    pid = _wait_for_trainer(site, job_id)
    before = site.jobs()[job_id]
    spool = site.home / "runs" / job_id / "events.jsonl"
    size = spool.stat().st_size
    process = site.processes["postgres"]
    process.is_held_down = True
    if how == "stopped":
        site.postgres.stop()
        time.sleep(away_s)
    elif not Hand(site, random.Random(0)).strike(Fault("postgres", "freeze")):
        raise NotProvoked("the database was not there to be frozen")
    grown, is_same_trainer = spool.stat().st_size - size, site.trainer_of(job_id) == pid
    process.is_held_down = False
    wait_until(site, have_ended, patience_s=away_s + PATIENCE_S)
    after = site.jobs()[job_id]
    scene = Scene(breaches=verdict.breaches(site, [job_id]))
    if after.fence != before.fence or not is_same_trainer or grown == 0:
        scene.breaches.append(f"attempt {before.fence} became {after.fence}; the spool grew by {grown} bytes meanwhile")
    scene.lines.append(
        f"the database {how} for {away_s:g} s in mid-job: {after.state} at step {after.step} of {after.num_steps}, "
        f"attempt {after.fence}, {grown:,} bytes told meanwhile"
    )
    return scene
