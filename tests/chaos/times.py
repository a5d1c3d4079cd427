"""How long it takes, by the clock of the events: back from a crash, back from a lost worker, drained, cancelled.

Everything is left at the product's defaults: a lease of 60 s, 20 s of grace for a cancel, 60 s for a drain.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select

from api.lifecycle import JobState
from api.store.tables import JobEvent
from tests.chaos.scenes import wait_until
from tests.chaos.site import Site
from tests.chaos.trainer import DEAF_SEED

ENDLESS = 1_000_000
PROMISED_S = {  # what is promised, and beyond which a sample is a breach
    "trainer killed until the next begins": 10.0,
    "worker killed until the next begins": 90.0,
    "drain asked for until all is saved and given back": 60.0,
    "cancel asked for until cancelled": 35.0,
    "cancel of a trainer that ignores SIGTERM": 35.0,
}


@dataclass
class Times:
    """Samples in seconds, by what was timed."""

    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PROMISED_S})

    @property
    def breaches(self) -> list[str]:
        """Samples that took longer than what is promised, and kinds without any."""
        late = [
            f"{name}: {sample:.1f} s"
            for name, samples in self.samples.items()
            for sample in samples
            if sample > PROMISED_S[name]
        ]
        return late + [f"{name}: no sample" for name, samples in self.samples.items() if not samples]

    def lines(self) -> list[str]:
        """The distribution of each."""
        return [
            f"{name}: n {len(samples)}, p50 {_share(samples, 0.5):.1f} s, p95 {_share(samples, 0.95):.1f} s, "
            f"max {max(samples):.1f} s (promised: {PROMISED_S[name]:.0f} s)"
            for name, samples in self.samples.items()
            if samples
        ]


def measure(site: Site, *, crashes: int, rounds: int, on_progress: Callable[[str], None]) -> Times:
    """At least `crashes` killed trainers; `rounds` times every worker killed, drained, and every job cancelled."""
    times, num_slots = Times(), site.shape.num_workers * site.shape.slots
    ids = [site.create_job(num_steps=ENDLESS, checkpoint_every=20) for _ in range(num_slots)]
    _wait_until_running(site, ids)
    while len(times.samples["trainer killed until the next begins"]) < crashes:
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
            ids = [site.create_job(num_steps=ENDLESS, checkpoint_every=20) for _ in range(num_slots)]
        _cancel(site, ids, times, "cancel asked for until cancelled")
        deaf = [site.create_job(num_steps=ENDLESS, checkpoint_every=20, seed=DEAF_SEED) for _ in range(num_slots)]
        _cancel(site, deaf, times, "cancel of a trainer that ignores SIGTERM")
    return times


def _wait_until_running(site: Site, ids: list[str]) -> None:
    wait_until(site, lambda rows: all(rows[i].state == JobState.RUNNING and rows[i].step > 0 for i in ids))
    time.sleep(1.0)


def _strike(site: Site, ids: list[str], times: Times, name: str, kill: Callable[[Site, list[str]], None]) -> None:
    """Kills, and waits until every job is running again."""
    fences = {job_id: site.jobs()[job_id].fence for job_id in ids}
    at = time.time()
    kill(site, ids)
    wait_until(site, lambda rows: all(rows[i].fence > fences[i] and rows[i].state == JobState.RUNNING for i in ids))
    for job_id in ids:
        started = _moments(site, job_id, to=JobState.RUNNING, since=at)
        if started:
            times.samples[name].append(started[-1] - at)
    time.sleep(1.0)


def _drain(site: Site, ids: list[str], times: Times) -> None:
    at = time.time()
    for worker in site.workers():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)
    fences = {job_id: site.jobs()[job_id].fence for job_id in ids}
    wait_until(site, lambda rows: all(rows[i].fence > fences[i] and rows[i].state == JobState.RUNNING for i in ids))
    for job_id in ids:
        given_back = _moments(site, job_id, to=JobState.RECOVERING, since=at)
        if given_back:
            times.samples["drain asked for until all is saved and given back"].append(given_back[0] - at)
    time.sleep(1.0)


def _cancel(site: Site, ids: list[str], times: Times, name: str) -> None:
    _wait_until_running(site, ids)
    for job_id in ids:
        site.client.cancel_job(job_id)
    wait_until(site, lambda rows: all(rows[i].state == JobState.CANCELLED for i in ids))
    for job_id in ids:
        asked = _moments(site, job_id, to=JobState.CANCELLING)
        gone = _moments(site, job_id, to=JobState.CANCELLED)
        times.samples[name].append(gone[-1] - asked[-1])


def _kill_trainers(site: Site, ids: list[str]) -> None:
    for pid in [site.trainer_of(job_id) for job_id in ids]:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def _kill_workers(site: Site, ids: list[str]) -> None:
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
