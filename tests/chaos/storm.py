"""A storm: jobs run, faults rain on all of it at once, and when it is over every promise is looked into.

The seed gives the faults, their order and their victims; how they interleave with the work is the machine's doing.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select

from api.lifecycle import TERMINAL, JobState
from api.store.database import Outage
from api.store.tables import Job
from client.http import ClientError
from stapo_core.failpoints import PLACES
from tests.chaos import verdict
from tests.chaos.faults import AWAY_S, Fault, Hand
from tests.chaos.site import Site

NUM_JOBS = 8
NUM_STEPS = 24
NUM_ARMED = 5
PATIENCE_S = 12.0
SETTLE_S = 150.0
_TICK_S = 0.05
_GAP_S = 0.25
_IN_HANDS = (JobState.STARTING, JobState.RUNNING)


@dataclass
class Report:
    """What a storm did and what it found."""

    seed: int
    planned: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    num_attempts: int = 0
    num_steps: int = 0
    took_s: float = 0.0

    @property
    def num_faults(self) -> int:
        """Faults that were done."""
        return self.hits.total()

    @property
    def missed(self) -> list[str]:
        """The phases that were struck less often than planned."""
        return [
            f"{phase}: {self.hits[phase]} of {number} faults were done"
            for phase, number in sorted(self.planned.items())
            if self.hits[phase] < number
        ]


class Storm:
    """One storm over one site."""

    def __init__(self, site: Site, faults: list[Fault], *, seed: int) -> None:
        self.site = site
        self.source = random.Random(seed)
        self.hand = Hand(site, self.source)
        self.waiting = list(faults)
        self.report = Report(seed, Counter(fault.phase for fault in faults))
        self._armed: dict[str, tuple[Fault, float]] = {}
        self._accepted: list[str] = []
        self._asked: list[str] = []  # to be cancelled, by a call whose answer may have been lost
        self._cancelled: list[str] = []
        self._paused: list[str] = []
        self._states: dict[str, JobState] = {}
        self._struck_at = self._nudged_at = self._bereft_at = 0.0

    def run(self, on_progress: Callable[[int, int], None], *, at_most_s: float = math.inf) -> Report:
        """Until every fault is done (or the time is up), the sky is clear and every job has ended."""
        began = time.monotonic()
        while (self.waiting or self._armed) and time.monotonic() - began < at_most_s:
            self._tick()
            self._keep_jobs()
            self._count()
            self._arm_or_strike()
            self._nudge()
            on_progress(self.report.num_faults, self.report.planned.total())
        self._clear_the_sky()
        self._settle()
        self.report.breaches = verdict.breaches(self.site, self._accepted, self._asked, self._cancelled, self._paused)
        jobs = self.site.jobs().values()
        self.report.ends = Counter(job.state for job in jobs)
        self.report.num_attempts, self.report.num_steps = sum(j.fence for j in jobs), sum(j.step for j in jobs)
        self.report.took_s = time.monotonic() - began
        return self.report

    def _tick(self) -> None:
        time.sleep(_TICK_S)
        self.site.revive()
        with contextlib.suppress(Outage), self.site.database.transaction() as session:
            self._states = {row.id: JobState(row.state) for row in session.execute(select(Job.id, Job.state))}
        for job_id, state in self._states.items():
            if state is JobState.PAUSED:  # by us, or for want of room: one call after there is room again
                self._ask(lambda job_id=job_id: self.site.client.resume_job(job_id))  # type: ignore[misc]

    def _keep_jobs(self) -> None:
        if sum(state not in TERMINAL for state in self._states.values()) < NUM_JOBS:
            job_id = self._ask(lambda: self.site.create_job(num_steps=NUM_STEPS))
            if job_id is not None:
                self._accepted.append(str(job_id))

    def _count(self) -> None:
        for fault in self.hand.delivered():
            self.report.hits[fault.phase] += 1
            self._armed.pop(fault.phase, None)

    def _arm_or_strike(self) -> None:
        now = time.monotonic()
        for late, since in list(self._armed.values()):
            # Nobody came by, or died with it in hand: another time. Who has just taken it tells of it in a moment.
            if now - since > PATIENCE_S and (self.hand.disarm(late) or now - since > 2 * PATIENCE_S):
                del self._armed[late.phase]
                self.waiting.insert(0, late)
        if not self.waiting or now - self._struck_at < _GAP_S:
            return
        fault = self.waiting[-1]
        if fault.phase not in PLACES:
            if self.hand.strike(fault):
                self.report.hits[fault.phase] += 1
                self.waiting.pop()
            self._struck_at = now
        elif len(self._armed) < NUM_ARMED and fault.phase not in self._armed:
            self.hand.arm(self.waiting.pop())
            self._armed[fault.phase] = (fault, now)
        else:
            self._swap()

    def _swap(self) -> None:
        """The next may have to wait for its place; another goes first."""
        place = self.source.randrange(len(self.waiting))
        self.waiting[-1], self.waiting[place] = self.waiting[place], self.waiting[-1]

    def _nudge(self) -> None:
        """Some places are passed only when somebody wants something."""
        running = [job_id for job_id, state in self._states.items() if state in _IN_HANDS]
        if time.monotonic() - self._nudged_at < 1.0 or not running:
            return
        self._nudged_at = time.monotonic()
        victim = self.source.choice(running)
        if "cancelling" in self._armed and JobState.CANCELLING not in self._states.values():
            self._asked.append(victim)
            if self._ask(lambda: self.site.client.cancel_job(victim)):
                self._cancelled.append(victim)
        if "pausing" in self._armed:
            other = self.source.choice(running)
            if self._ask(lambda: self.site.client.pause_job(other)):
                self._paused.append(other)
        wanted = {"draining", "reaping"} & self._armed.keys()
        if wanted and self._nudged_at - self._bereft_at > AWAY_S * self.hand.lease_s:  # somebody must be left to reap
            self._bereft_at = self._nudged_at
            self.hand.strike(Fault("both", "kill") if "reaping" in wanted else Fault("worker", "term"))

    def _ask(self, call: Callable[[], object]) -> object | None:
        with contextlib.suppress(ClientError):
            return call()
        return None

    def _clear_the_sky(self) -> None:
        for place in PLACES:
            self.hand.disarm(Fault(place, ""))
        self.hand.take_back()

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            self._tick()
            self._count()
            if self._states and all(state in TERMINAL for state in self._states.values()):
                return
