"""How long it takes, by the clock of the events: back from a crash, back from a lost worker, drained, cancelled.

Everything is left at the product's defaults: a lease of 60 s, 20 s of grace for a cancel, 60 s for a drain.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from api.lifecycle import JobState
from api.store.tables import Job, JobEvent
from tests.chaos.scenes import NotProvoked, wait_for, wait_until
from tests.chaos.site import Site
from tests.chaos.trainer import DEAF_SEED, STEP_S

ENDLESS = 1_000_000
CHECKPOINT_EVERY = 20
PROMISED_S = {  # what is promised, and beyond which a sample is a breach
    "trainer killed until the next begins": 10.0,
    "worker killed until the next begins": 90.0,
    "drain asked for until all is saved and given back": 60.0,
    "cancel asked for until cancelled": 35.0,
    "cancel of a trainer that ignores SIGTERM": 35.0,
}


@dataclass
class Times:
    """Samples in seconds, by what was timed; `breaches` took longer than promised, or never came."""

    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PROMISED_S})
    breaches: list[str] = field(default_factory=list)

    def take(self, name: str, job_id: str, moments: list[float], *, since: float, loading_s: float = 0.0) -> None:
        """A sample of one job, with what its trainer had for loading; without a moment it did not come so far."""
        if not moments:
            self.breaches.append(f"{name}: {job_id} never came so far")
            return
        sample = moments[-1] - since
        self.samples[name].append(sample)
        if sample - loading_s > PROMISED_S[name]:
            self.breaches.append(f"{name}: {sample:.1f} s, of which {loading_s:.1f} s were loading")

    def lines(self) -> list[str]:
        """The distribution of each."""
        return [
            f"{name}: n {len(samples)}, p50 {_share(samples, 0.5):.1f} s, p95 {_share(samples, 0.95):.1f} s, "
            f"max {max(samples):.1f} s (promised: {PROMISED_S[name]:.0f} s)"
            for name, samples in self.samples.items()
            if samples
        ]


def measure(site: Site, *, crashes: int, rounds: int, seed: int, on_progress: Callable[[str], None]) -> Times:
    """At least `crashes` killed trainers; `rounds` times every worker killed, drained, and every job cancelled."""
    times, num_slots, source = Times(), site.shape.num_workers * site.shape.slots, random.Random(seed)
    ids = [_create(site) for _ in range(num_slots)]
    for _ in range(math.ceil(crashes / num_slots)):
        on_progress("killing trainers")
        _strike(site, ids, times, "trainer killed until the next begins", _kill_trainers)
    for _ in range(rounds):
        on_progress("killing workers")
        _strike(site, ids, times, "worker killed until the next begins", _kill_workers)
        on_progress("draining workers")
        _drain(site, ids, times)
    for number in range(rounds):
        on_progress("cancelling")
        if number:
            ids = [_create(site) for _ in range(num_slots)]
        _cancel(site, ids, times, "cancel asked for until cancelled", source)
        deaf = [_create(site, seed=DEAF_SEED) for _ in range(num_slots)]
        _cancel(site, deaf, times, "cancel of a trainer that ignores SIGTERM", source)
    return times


def _create(site: Site, **fields: int) -> str:
    return site.create_job(num_steps=ENDLESS, checkpoint_every=CHECKPOINT_EVERY, **fields)


def _wait_for_trainers(site: Site, ids: list[str]) -> dict[str, int]:
    """The process id of each job's trainer, when all are at work and a checkpoint further. Raises NotProvoked."""
    wait_for(site, "every job a checkpoint further", lambda rows: all(_is_further(rows[i]) for i in ids))
    time.sleep(1.0)
    pids = {job_id: pid for job_id in ids if (pid := site.trainer_of(job_id)) is not None}
    if pids.keys() != set(ids):
        raise NotProvoked(f"only {len(pids)} of {len(ids)} jobs have a trainer")
    return pids


def _is_further(job: Job) -> bool:
    """Whether its attempt has brought a checkpoint: a crash before that would wait longer than a first one."""
    return job.state == JobState.RUNNING and job.attempts_without_progress == 0


def _strike(site: Site, ids: list[str], times: Times, name: str, kill: Callable[[Site, list[int]], None]) -> None:
    """Kills, and waits until every job is running again."""
    pids = _wait_for_trainers(site, ids)
    fences = {job_id: site.jobs()[job_id].fence for job_id in ids}
    at = time.time()
    kill(site, list(pids.values()))
    wait_until(site, lambda rows: all(rows[i].fence > fences[i] and rows[i].state == JobState.RUNNING for i in ids))
    for job_id in ids:
        began, running = (_moments(site, job_id, to=to, since=at) for to in (JobState.STARTING, JobState.RUNNING))
        loading_s = running[-1] - began[-1] if running and kill is _kill_trainers else 0.0  # promised "and its loading"
        times.take(name, job_id, running, since=at, loading_s=loading_s)


def _drain(site: Site, ids: list[str], times: Times) -> None:
    """Asks every worker to leave."""
    _wait_for_trainers(site, ids)
    at = time.time()
    for worker in site.workers():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)
    wait_until(site, lambda _: all(_moments(site, i, to=JobState.RECOVERING, since=at) for i in ids))
    for job_id in ids:
        given_back = _moments(site, job_id, to=JobState.RECOVERING, since=at)
        times.take("drain asked for until all is saved and given back", job_id, given_back[:1], since=at)


def _cancel(site: Site, ids: list[str], times: Times, name: str, source: random.Random) -> None:
    """Each at a moment of its own between two checkpoints; whoever is `cancelled` has no process any more."""
    pids = _wait_for_trainers(site, ids)
    births = {job_id: _birth(pid) for job_id, pid in pids.items()}
    for job_id in ids:
        time.sleep(source.uniform(0.0, CHECKPOINT_EVERY * STEP_S))
        site.client.cancel_job(job_id)
    outlived: set[str] = set()

    def look(rows: dict[str, Job]) -> bool:
        cancelled = [job_id for job_id in ids if rows[job_id].state == JobState.CANCELLED]
        outlived.update(job_id for job_id in cancelled if _birth(pids[job_id]) == births[job_id])
        return len(cancelled) == len(ids)

    wait_until(site, look)
    times.breaches += [f"{name}: {job_id} is cancelled, and its trainer lives" for job_id in sorted(outlived)]
    for job_id in ids:
        asked = _moments(site, job_id, to=JobState.CANCELLING)
        times.take(name, job_id, _moments(site, job_id, to=JobState.CANCELLED), since=asked[-1])


def _birth(pid: int) -> str | None:
    """When the process began, by the kernel's count: another that gets its id has another. None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _kill_trainers(site: Site, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _kill_workers(site: Site, pids: list[int]) -> None:
    for worker in site.workers():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)


def _moments(site: Site, job_id: str, *, to: JobState, since: float = 0.0) -> list[float]:
    """When the job came into the state, by its events."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == "state").order_by(JobEvent.seq)
    with site.database.transaction() as session:
        events = [event for event in session.scalars(query) if event.data["to"] == to]
    return [event.created_at.timestamp() for event in events if event.created_at.timestamp() >= since]


def _share(samples: list[float], share: float) -> float:
    return sorted(samples)[int(share * (len(samples) - 1))]
