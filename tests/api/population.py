"""Fills the API with one of everything that has an id, as a worker and its trainer would leave it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.errors import Fenced
from api.lifecycle import JobState
from api.logs import log_path
from api.settings import Settings
from api.store import artifacts, completions, leases, metrics, rollouts
from api.store.database import Database
from api.store.events import move
from api.store.recordings import index_recording, recording_path
from api.store.tables import Job

MODEL = ("config.json", "model.safetensors")
TOKEN = {"token": "2", "logprob": -0.5, "bytes": [50], "top": []}


class QuickWorker:
    """A worker without a model: it ends every job it finds after one step and answers every prompt with `2`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopping = threading.Event()

    def working(self) -> AbstractContextManager[None]:
        """Ends jobs and answers prompts until the block ends."""
        return self._running(self._answer, self._end_next)

    def answering(self) -> AbstractContextManager[None]:
        """Answers prompts until the block ends."""
        return self._running(self._answer)

    @contextmanager
    def _running(self, *duties: Callable[[], object]) -> Iterator[None]:
        thread = threading.Thread(target=self._run, args=duties)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def end_jobs(self) -> None:
        """Ends what waits, one job after another."""
        while self._end_next():
            continue

    def _run(self, *duties: Callable[[], object]) -> None:
        while not self._stopping.wait(0.02):
            with self._database.transaction() as session:
                leases.beat(session, "quick", slots=1)
            for duty in duties:
                duty()

    def _answer(self) -> None:
        with self._database.transaction() as session:
            asked = completions.take_completion(session, patience_s=60.0)
            if asked is not None:
                told = None if asked.ask["logprobs"] is None else [TOKEN]
                drawn = {"text": "2", "finish": "stop", "tokens": 1, "logprobs": told}
                count = len(asked.ask["rows"]) * asked.ask["num_samples"]
                completions.answer_completion(session, asked.id, {"prompt_tokens": 4, "responses": [drawn] * count})

    def _end_next(self) -> bool:
        with self._database.transaction() as session:
            job = leases.claim_job(session, worker="quick", lease_s=60.0)
        if job is None:
            return False
        with suppress(Fenced):
            self._end(job)
        return True

    def _end(self, claimed: Job) -> None:
        log_path(self._settings.runs_dir, claimed.id).parent.mkdir(parents=True, exist_ok=True)
        log_path(self._settings.runs_dir, claimed.id).write_text("step 1\n")
        with self._database.transaction() as session:
            job = leases.hold(session, claimed.id, claimed.fence)
            if JobState(job.state) is JobState.CANCELLING:
                move(session, job, JobState.CANCELLED, "Cancelled.")
                return
            if JobState(job.state) is JobState.PAUSING:
                move(session, job, JobState.PAUSED, "Paused.")
                return
            move(session, job, JobState.RUNNING, "Training begins.", device="cpu", versions={"python": "3.11"})
            metrics.add_metrics(session, job, "train", 1, {"reward/mean": 1.0, "mask/ppm": None}, datetime.now(UTC))
            job.step = 1
            add_checkpoint(self._settings, session, job, 1, final=True)
            add_rollout(self._settings, session, job)
            move(session, job, JobState.EXPORTING, "Exporting.")
            move(session, job, JobState.SUCCEEDED, "Done.")


def add_checkpoint(
    settings: Settings, session: Any, job: Job, step: int, *, final: bool, paths: Sequence[str] = MODEL
) -> str:
    """A published checkpoint of a few bytes; returns its id."""
    folder = artifacts.folder_path(settings.artifacts_dir, job.id, step)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("{}")
    files = [{"path": path, "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()} for path in paths]
    return artifacts.add_checkpoint(session, job, step=step, final=final, files=files, metrics={}).id


def add_rollout(settings: Settings, session: Any, job: Job) -> None:
    """One recorded response of two tokens, the second of them silenced."""
    path = recording_path(settings.artifacts_dir, job.id, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"position": np.arange(2), "token_id": np.array([5, 6]), "token": ["a", "b"]}
    columns |= {name: np.zeros(2, dtype=np.int64) for name in ("prompt_index", "sample_index")}
    numbers = ["p", "entropy", "advantage", "reward", "grad_norm", "tau_p", "tau_h", "weight", "ratio"]
    numbers += ["logprob", "old_logprob", "sampler_logprob"]
    columns |= {name: np.full(2, 0.5, dtype=np.float32) for name in numbers}
    flags = ("clipped", "positive_advantage", "low_p", "low_h", "scored")
    columns |= {name: np.ones(2, dtype=bool) for name in flags} | {"masked": np.array([False, True])}
    columns |= {"prompt": ["x"] * 2, "response": ["ab"] * 2, "finish": ["stop"] * 2}
    pq.write_table(pa.table(columns), path)
    rollouts.replace_rollouts(session, job, 1, index_recording(path))
