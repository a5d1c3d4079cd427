"""One job from claim to settlement: claim, spawn, relay, settle. Read `run_attempt` first.

Whatever happens here is written under the attempt's fence. `Fenced` means that the job has been given to another
attempt: the trainer is killed and nothing more is written.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from api.errors import Fenced
from api.lifecycle import JobState
from api.settings import Settings
from api.store import artifacts, files, leases
from api.store.database import Database, Outage
from api.store.events import move
from api.store.leases import RetryRule
from api.store.tables import Job
from stapo_core.config import RunConfig
from stapo_core.events import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FENCED, EXIT_HALTED, EXIT_STOPPED
from stapo_core.failpoints import failpoint
from stapo_core.spool import is_storage_full
from worker.devices import Devices, find_devices
from worker.process import Trainer, start_trainer, tail_log
from worker.recorder import Attempt, Recorder

_LOG = structlog.get_logger()
_REMEDIES: dict[str, str] = {
    "storage_full": "The last checkpoint is whole; make room, then resume the job.",
    "grader_errors": "The last whole step is saved; see to the grader, then resume the job, or fork it with another.",
}


class Runner:
    """Runs at most `worker_slots` jobs at a time, each in the thread that calls `run_waiting_jobs`."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.settings = settings
        self.database = Database(settings.database_url, silent_s=settings.lease_s)
        self.rule = RetryRule(max_attempts=settings.max_attempts, backoff_s=settings.backoff_s)
        self.is_draining = threading.Event()
        self.held: set[tuple[str, int]] = set()
        """The attempts (id, fence) under way."""
        self._slots = threading.Semaphore(settings.worker_slots)
        self._devices = Devices(find_devices())

    def run_waiting_jobs(self) -> None:
        """Claims and runs jobs until none waits, no slot is free, or the worker drains."""
        while not self.is_draining.is_set() and self._slots.acquire(blocking=False):
            try:
                job = self._claim()
                if job is None:
                    return
                self.held.add((job.id, job.fence))
                try:
                    self.run_attempt(job)
                finally:
                    self.held.discard((job.id, job.fence))
            except Outage as error:
                _LOG.warning("database_away", error=str(error))
                return
            finally:
                self._slots.release()

    def has_free_slot(self) -> bool:
        """Whether a job could start now."""
        if not self._slots.acquire(blocking=False):
            return False
        self._slots.release()
        return True

    def run_attempt(self, job: Job) -> None:
        """One attempt at a claimed job."""
        attempt = self._attempt(job)
        recorder = Recorder(self.database, attempt)
        try:
            recorder.rewind()
            failpoint("claimed")  # behind the last question to the rows before the run directory
            with self._devices.lend() as device:
                trainer = start_trainer(attempt.run_dir, self._run_config(job), fence=job.fence, environment=device)
                try:
                    self._relay(trainer, recorder, attempt)
                finally:
                    trainer.close()
            self._settle(trainer, recorder, attempt)
        except Fenced:
            _LOG.warning("fenced", job=job.id, fence=job.fence)
        except Outage:
            raise
        except Exception as error:  # a fault of ours or of this machine costs the job one attempt, never the worker
            _LOG.exception("worker_error", job=job.id, fence=job.fence)
            self._give_up(attempt, error)

    def _claim(self) -> Job | None:
        with self.database.transaction() as session:
            return leases.claim_job(session, worker=self.name, lease_s=self.settings.lease_s)

    def _attempt(self, job: Job) -> Attempt:
        return Attempt(
            job_id=job.id,
            fence=job.fence,
            run_dir=self.settings.runs_dir / job.id,
            artifacts_dir=self.settings.artifacts_dir,
            keep_checkpoints=job.method["reinforcement"]["config"]["checkpoint"]["keep"],
            lease_s=self.settings.lease_s,
            max_rollout_bytes=self.settings.max_rollout_bytes,
        )

    def _run_config(self, job: Job) -> RunConfig:
        asked = job.method["reinforcement"]
        return RunConfig.model_validate(
            {
                "model": self._model(job),
                "training_file": self._file(job.training_file),
                "validation_file": self._file(job.validation_file) if job.validation_file else None,
                "grader": asked["grader"],
                "seed": job.seed,
                "train": asked["config"],
                "num_epochs": asked["hyperparameters"]["n_epochs"],
            }
        )

    def _model(self, job: Job) -> Path:
        """The base model, or the checkpoint of another job that this one begins at."""
        if job.base_job_id is None or job.base_step is None:
            return self.settings.models_dir / job.model
        return artifacts.folder_path(self.settings.artifacts_dir, job.base_job_id, job.base_step)

    def _file(self, file_id: str) -> Path:
        return files.file_path(self.settings.files_dir, file_id)

    # --- relay ----------------------------------------------------------------------------------------------------

    def _relay(self, trainer: Trainer, recorder: Recorder, attempt: Attempt) -> None:
        """Ships events, renews the lease and obeys the tenant until the trainer has left.

        A database that is away stops nothing: the spool keeps what the trainer says until it returns.
        """
        renewed_at = time.monotonic()

        def keep_alive() -> None:
            nonlocal renewed_at
            if time.monotonic() - renewed_at >= self.settings.heartbeat_s:
                wish = self._renew(attempt)
                renewed_at = time.monotonic()
            else:
                wish = self._read_wish(attempt)
            if trainer.exit_code() is None:
                self._obey(wish, trainer)

        recorder.keep_alive = keep_alive
        is_behind = False
        while trainer.exit_code() is None:
            trainer.wait(0.0 if is_behind else self.settings.poll_s)
            trainer.kill_if_stalled(self.settings.stall_s)
            try:
                is_behind = recorder.ship_batch()
                keep_alive()
            except Outage as error:
                _LOG.warning("database_away", job=attempt.job_id, error=str(error))
                is_behind = False
                self._obey(JobState.RUNNING, trainer)

    def _obey(self, wish: JobState, trainer: Trainer) -> None:
        """Asks the trainer to leave where the tenant or the operator wants that."""
        if wish is JobState.CANCELLING:
            failpoint("cancelling")
            trainer.stop(grace_s=self.settings.cancel_grace_s)
        elif wish is JobState.PAUSING:
            failpoint("pausing")
            trainer.stop(grace_s=self.settings.cancel_grace_s)
        elif self.is_draining.is_set():
            failpoint("draining")
            trainer.stop(grace_s=self.settings.drain_s)

    def _renew(self, attempt: Attempt) -> JobState:
        with self.database.transaction() as session:
            return leases.renew_lease(session, attempt.job_id, attempt.fence, lease_s=self.settings.lease_s)

    def _read_wish(self, attempt: Attempt) -> JobState:
        with self.database.transaction() as session:
            return leases.read_wish(session, attempt.job_id, attempt.fence)

    # --- settle ---------------------------------------------------------------------------------------------------

    def _settle(self, trainer: Trainer, recorder: Recorder, attempt: Attempt) -> None:
        """Writes how the attempt ended; the trainer is gone. Waits for a database that is away."""
        while True:
            try:
                recorder.ship()
                self._settle_once(trainer, recorder, attempt)
            except Outage as error:
                _LOG.warning("database_away", job=attempt.job_id, error=str(error))
                time.sleep(self.settings.poll_s)
            else:
                return

    def _settle_once(self, trainer: Trainer, recorder: Recorder, attempt: Attempt) -> None:
        code = trainer.exit_code()
        was_asked = trainer.was_asked or self.is_draining.is_set()
        with self.database.transaction() as session:
            job = leases.hold(session, attempt.job_id, attempt.fence)
            is_busy = code == EXIT_FENCED
            why = "another trainer still holds the run directory" if is_busy else "the trainer is gone"
            if leases.settle_as_asked(session, job, why):
                pass
            elif code == EXIT_DONE and job.state == JobState.EXPORTING:
                move(session, job, JobState.SUCCEEDED, f"Succeeded after {job.step} steps.")
            elif code == EXIT_HALTED:
                reason, message = _halt(recorder)
                leases.pause_job(session, job, reason, message)
            elif is_busy:
                message = f"Attempt {job.fence} found the run directory held by another trainer; trying again later."
                leases.release_job(session, job, message, wait_s=self.settings.lease_s)
            elif was_asked and code in (EXIT_STOPPED, -signal.SIGTERM):
                leases.release_job(session, job, f"Attempt {job.fence} stopped as asked; waiting for a worker.")
            else:
                leases.fail_attempt(session, job, _trainer_error(trainer, recorder, job), self.rule)
            failpoint("finishing")

    def _give_up(self, attempt: Attempt, error: Exception) -> None:
        """Writes that the worker itself could not go on; the trainer, if there was one, is gone."""
        try:
            with self.database.transaction() as session:
                job = leases.hold(session, attempt.job_id, attempt.fence)
                if leases.settle_as_asked(session, job, f"the worker could not go on ({error})"):
                    pass
                elif is_storage_full(error):
                    leases.pause_job(session, job, "storage_full", f"{error}. {_REMEDIES['storage_full']}")
                else:
                    message = f"the worker could not go on: {type(error).__name__}: {error}"
                    failure = _error("worker_error", message, stage=job.stage, retryable=True)
                    leases.fail_attempt(session, job, failure, self.rule)
        except Fenced:
            _LOG.warning("fenced", job=attempt.job_id, fence=attempt.fence)


def _halt(recorder: Recorder) -> tuple[str, str]:
    """Why the trainer halted; a disk that is too full leaves no room even for that word."""
    if recorder.halt is None:
        return "storage_full", f"there was no room to write, not even an event. {_REMEDIES['storage_full']}"
    return recorder.halt.reason, f"{recorder.halt.message}. {_REMEDIES[recorder.halt.reason]}"


def _trainer_error(trainer: Trainer, recorder: Recorder, job: Job) -> dict[str, Any]:
    """Why a trainer left that was neither done nor asked to: its own words, else its exit code and its log's end."""
    log = tail_log(recorder.run_dir)
    code, said = trainer.exit_code(), recorder.failure
    if trainer.is_stalled:
        message = f"the trainer was silent for too long while {job.stage or 'starting'}, and was killed"
        error = _error("trainer_stalled", message, stage=job.stage, retryable=True)
    elif said is not None:
        error = _error(said.code, said.message, stage=said.stage, param=said.param, retryable=said.retryable)
    else:
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"left with exit code {code}"
        message = f"the trainer {how} while {job.stage or 'starting'}"
        error = _error("trainer_crashed", message, stage=job.stage, retryable=code != EXIT_BAD_CONFIG)
    return error | {"evidence": log}


def _error(code: str, message: str, *, stage: str | None, retryable: bool, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "stage": stage, "retryable": retryable}
