"""The race for jobs: many claimers, attempts that are broken off at random, and each job settled once.

Claims, settlements and lapsed leases go through the store's own functions against a real Postgres.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import insert, text

from api.errors import Fenced
from api.lifecycle import JobState
from api.store import leases
from api.store.database import Database, Outage
from api.store.leases import RetryRule
from api.store.tables import File, Job

NUM_CLAIMERS = 32
LEASE_S = 4.0
RULE = RetryRule(max_attempts=100, backoff_s=0.0)
_END = {"code": "done", "message": "settled", "param": None, "stage": None, "retryable": False}


@dataclass
class Race:
    """What happened: who claimed what under which fence, who settled it, and how long each claim took."""

    num_jobs: int
    claims: list[tuple[str, int]] = field(default_factory=list)
    settled: Counter[str] = field(default_factory=Counter)
    aborted: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def num_doubled(self) -> int:
        """Claims that gave out a fence twice, and jobs that were settled twice."""
        return len(self.claims) - len(set(self.claims)) + sum(number - 1 for number in self.settled.values())

    @property
    def num_lost(self) -> int:
        """Jobs that nobody settled."""
        return self.num_jobs - len(self.settled)

    def latency_s(self, share: float) -> float:
        """The claim that is slower than this share of all."""
        return sorted(self.latencies_s)[int(share * (len(self.latencies_s) - 1))]


class Aborted(Exception):
    """The claimer died in its transaction."""


def add_jobs(database: Database, number: int) -> None:
    """So many queued jobs."""
    with database.transaction() as session:
        session.add(File(id="file-race", tenant="t", filename="f", purpose="fine-tune", bytes=1, sha256="0"))
        session.flush()
        row = {"tenant": "t", "model": "m", "training_file": "file-race", "seed": 1, "num_steps": 1, "method": {}}
        rows = [row | {"id": f"ftjob-race-{n:06d}", "state": JobState.QUEUED.value} for n in range(number)]
        session.execute(insert(Job), rows)


def race(
    database_url: str, *, num_jobs: int, seed: int, on_progress: Callable[[int], None] = lambda done: None
) -> Race:
    """Runs the race to its end, or for as long as it makes progress."""
    database = Database(database_url, pool_size=NUM_CLAIMERS + 2)
    add_jobs(database, num_jobs)
    result, lock, is_over = Race(num_jobs), threading.Lock(), threading.Event()

    def claimer(number: int) -> None:
        source = random.Random(f"{seed}-{number}")
        while not is_over.is_set():
            if not _claim_one(database, f"claimer-{number}", source, result, lock):
                is_over.wait(0.05)

    def reaper() -> None:
        while not is_over.wait(0.5):
            with database.transaction() as session:
                leases.expire_leases(session, RULE, lease_s=0.0)

    began = time.monotonic()
    threads = [threading.Thread(target=claimer, args=(n,)) for n in range(NUM_CLAIMERS)]
    threads.append(threading.Thread(target=reaper))
    for thread in threads:
        thread.start()
    last, moved_at = 0, time.monotonic()
    while len(result.settled) < num_jobs and time.monotonic() - moved_at < 30.0:
        time.sleep(0.1)
        if len(result.settled) != last:
            last, moved_at = len(result.settled), time.monotonic()
            on_progress(last)
    time.sleep(LEASE_S / 2)  # whoever would settle one twice may do so now
    is_over.set()
    for thread in threads:
        thread.join()
    result.took_s = time.monotonic() - began
    database.close()
    return result


def _claim_one(database: Database, name: str, source: random.Random, result: Race, lock: threading.Lock) -> bool:
    """One claim and what becomes of it; false when no job waited."""
    fate = source.choices(("settle", "raise", "cut", "die"), (85, 5, 5, 5))[0]
    began = time.perf_counter()
    try:
        with database.transaction() as session:
            job = leases.claim_job(session, worker=name, lease_s=LEASE_S)
            if job is None:
                return False
            if fate == "raise":
                raise Aborted
            if fate == "cut":
                session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    except (Aborted, Outage):
        result.aborted[fate] += 1
        return True
    with lock:
        result.latencies_s.append(time.perf_counter() - began)
        result.claims.append((job.id, job.fence))
    if fate == "die":
        result.aborted[fate] += 1
        return True
    try:
        with database.transaction() as session:
            leases.fail_attempt(session, leases.hold(session, job.id, job.fence), _END, RULE)
    except Fenced:  # it took longer than its lease
        result.aborted["late"] += 1
    else:
        with lock:
            result.settled[job.id] += 1
    return True
