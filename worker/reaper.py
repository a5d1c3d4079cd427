"""Housekeeping beside the jobs: signs of life, lapsed leases, and work that no doorbell announced."""

from __future__ import annotations

import threading
import time

import structlog

from api.settings import Settings
from api.store import leases
from api.store.database import Outage
from worker.runner import Runner

_LOG = structlog.get_logger()


class Housekeeper:
    """A thread that beats, reaps and polls every `sweep_s` seconds; jobs that it finds run in threads of their own."""

    def __init__(self, runner: Runner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)
        self._jobs: list[threading.Thread] = []
        # After an outage silent workers get one lease to speak up: they could not renew either. We may have come up
        # just behind one, so the first reaping waits as long.
        self._reap_after = _now() + settings.lease_s
        self._beaten_at = 0.0

    def start(self) -> None:
        """Starts the thread."""
        self._beaten_at = _now()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, then waits for its jobs, which drain."""
        self._stopping.set()
        self._thread.join()
        for job in self._jobs:
            job.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
                self._reap()
                self._poll()
            except Outage as error:
                self._reap_after = _now() + self._settings.lease_s
                _LOG.warning("database_away", error=str(error))
            except Exception:  # a worker without its housekeeper would be up, and deaf
                _LOG.exception("housekeeping_failed")
            self._stopping.wait(min(self._settings.sweep_s, self._settings.heartbeat_s))

    def _beat(self) -> None:
        with self._runner.database.transaction() as session:
            leases.beat(session, self._runner.name, slots=self._settings.worker_slots)
        now = _now()
        if now - self._beaten_at > self._settings.lease_s / 2:  # the database, or this machine, stood still
            self._reap_after = now + self._settings.lease_s
        self._beaten_at = now

    def _reap(self) -> None:
        asked_at = _now()
        if asked_at < self._reap_after:
            return
        with self._runner.database.transaction() as session:
            lapsed = leases.expire_leases(
                session, self._runner.rule, lease_s=self._settings.lease_s, spared=tuple(self._runner.held)
            )
            if _now() - asked_at > self._settings.lease_s / 2:
                raise Outage("the database stood still over the question whose lease has lapsed")
        for job_id in lapsed:
            _LOG.warning("lease_lapsed", job=job_id)

    def _poll(self) -> None:
        self._jobs = [job for job in self._jobs if job.is_alive()]
        with self._runner.database.transaction() as session:
            if not leases.is_job_waiting(session):
                return
        if self._runner.is_draining.is_set() or not self._runner.has_free_slot():
            return
        job = threading.Thread(target=self._runner.run_waiting_jobs, name="polled-job", daemon=True)
        job.start()
        self._jobs.append(job)


def _now() -> float:
    """Seconds that go on while the machine is suspended, as the database's do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
