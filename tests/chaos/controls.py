"""The harness with one guard of the product removed: it must see what that guard prevents, and nothing while it stands.

Each guard has a provocation: one job, brought on purpose into the situation that the guard is for. It is done twice on
the same site, first with every guard in its place, then without this one; all the others stand both times.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from api.lifecycle import TERMINAL, JobState
from api.store.tables import Job, JobEvent
from client.errors import ApiError
from tests.chaos import audit, verdict
from tests.chaos.faults import Fault, Hand
from tests.chaos.scenes import NotProvoked, wait_for, wait_until
from tests.chaos.site import Site
from tests.chaos.trainer import SLOW_SEED

NUM_STEPS = 20
ENDLESS = 10_000  # slow steps: whatever this machine does meanwhile, both attempts have work when they meet
TOGETHER = 4  # steps, so that both have done some
ENOUGH = 12  # more steps without a breach: the ghost has had its time
WAITING = 100
FOR_GOOD = 100.0  # leases
KILLED = "was ended by signal 9"
Provoke = Callable[[Site, random.Random], str]


@dataclass(frozen=True)
class Guard:
    """How to bring about what the guard is for, and a word of each breach that shows its absence."""

    provoke: Provoke
    shows: tuple[str, ...]


def suspend_at_work(site: Site, source: random.Random) -> str:
    """A worker is suspended past its lease while its trainer goes on; it wakes when another has the job."""
    job_id = site.create_job(num_steps=ENDLESS, seed=SLOW_SEED)
    step = source.randrange(1, 7)
    wait_for(site, "a job at work", lambda rows: rows[job_id].step >= step)
    job = site.jobs()[job_id]
    holder = int(str(job.worker).rpartition(":")[2])
    os.kill(holder, signal.SIGSTOP)
    try:
        wait_for(site, "another attempt", lambda rows: _is_at_work(rows[job_id], attempt=job.fence + 1))
        met_at = site.jobs()[job_id].step
        wait_for(site, "two attempts at work", lambda rows: rows[job_id].step >= met_at + TOGETHER)
    finally:
        os.kill(holder, signal.SIGCONT)
    return job_id


def suspend_at_the_claim(site: Site, source: random.Random) -> str:
    """A worker is suspended right after its claim, and comes to the run directory when another attempt is there."""
    hand = Hand(site, source, away=FOR_GOOD)
    hand.delivered()
    hand.arm(Fault("claimed", "stop"))
    job_id = site.create_job(num_steps=ENDLESS, seed=SLOW_SEED)
    wait_for(site, "a worker suspended at its claim", lambda rows: bool(hand.delivered()))
    step = source.randrange(1, 7)
    wait_for(site, "another attempt", lambda rows: _is_at_work(rows[job_id], attempt=2) and rows[job_id].step >= step)
    hand.take_back()
    return job_id


def kill_while_saving(site: Site, source: random.Random) -> str:
    """A trainer is killed while it writes a checkpoint: the steps behind the one before are done again."""
    hand = Hand(site, source)
    place = source.choice(["checkpoint_drafted", "checkpoint_synced"])
    hand.delivered()
    hand.arm(Fault(place, f"kill @{source.randrange(1, 7)}"))
    job_id = site.create_job(num_steps=NUM_STEPS)
    wait_for(site, "a trainer killed while it saves", lambda rows: bool(hand.delivered()))
    return job_id


GUARDS: dict[str, Guard] = {
    "fence": Guard(suspend_at_work, (" written by ",)),
    "lock": Guard(suspend_at_work, ("does not follow", "of another lineage")),
    "directory-fence": Guard(suspend_at_the_claim, (KILLED,)),
    "rename": Guard(kill_while_saving, ("half-written",)),
    "truncation": Guard(kill_while_saving, ("does not follow",)),
}


def try_with_and_without(site: Site, seed: int, on_finding: Callable[[str], None]) -> list[str]:
    """Every provocation with all guards, then each guard's without it; what should not have been found, or should."""
    intact = {GUARDS[guard].provoke: guard for guard in GUARDS}.values()
    failures = [f"with every guard: {breach}" for guard in intact for breach in provoke(site, guard, seed)]
    on_finding(f"with every guard: {len(intact)} provocations, {len(failures)} breaches")
    for guard in GUARDS:
        site.change_workers(without=guard)
        found = provoke(site, guard, seed)
        on_finding(f"without the {guard}: noticed: {found[0] if found else 'NOTHING'}")
        failures += [] if found else [f"without the {guard} nothing was noticed"]
    return failures


def provoke(site: Site, guard: str, seed: int) -> list[str]:
    """What the provocation of this guard broke; on a site without the guard, only what tells of its absence."""
    job_id = GUARDS[guard].provoke(site, random.Random(f"{seed} {guard}"))
    last = site.jobs()[job_id].step + (WAITING if site.without else ENOUGH)
    found: list[str] = []

    def look(rows: dict[str, Job]) -> bool:
        with contextlib.suppress(FileNotFoundError):  # an old checkpoint went while it was looked at
            found[:] = noticed(guard, _breaches(site, job_id, guard))
        return bool(found) or rows[job_id].state in TERMINAL or rows[job_id].step >= last

    if not wait_until(site, look) and not site.without:
        raise NotProvoked(f"{job_id} came no further, with every guard")
    try:
        site.client.cancel_job(job_id)
    except ApiError as refused:  # it may have ended by itself meanwhile
        if refused.code != "illegal_state":
            raise
    if site.without:
        return found
    wait_until(site, lambda rows: rows[job_id].state in TERMINAL)
    return _breaches(site, job_id, guard)


def noticed(guard: str, breaches: list[str]) -> list[str]:
    """The breaches that tell of this guard's absence, and not only of a job that ended badly."""
    return [breach for breach in breaches if any(word in breach for word in GUARDS[guard].shows)]


def _is_at_work(job: Job, *, attempt: int) -> bool:
    return job.fence >= attempt and job.state == JobState.RUNNING


def _breaches(site: Site, job_id: str, guard: str) -> list[str]:
    """Of this job alone. Where only workers are suspended, a trainer dies by none but a worker that lost the job."""
    killed = select(JobEvent.message).where(JobEvent.job_id == job_id, JobEvent.message.contains(KILLED))
    with site.database.transaction() as session:
        found = list(verdict.breaches_of(session, site, session.get_one(Job, job_id)))
        if GUARDS[guard].provoke is not kill_while_saving:
            found += [f"nobody killed a trainer, and: {message}" for message in session.scalars(killed)]
    ghosts = [breach for breach in audit.ghost_writes(site.database) if breach.startswith(job_id)]
    return ghosts + [f"{job_id}: {breach}" for breach in found]
