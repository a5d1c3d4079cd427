"""Answers prompts beside the jobs: one thread, one model held warm, the last one that was asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import structlog

from api.settings import Settings
from api.store import artifacts, completions
from api.store.database import Database, Outage
from api.store.tables import Completion
from worker.replies import LOAD_S, ReplyError, WarmModel

_LOG = structlog.get_logger()
IDLE_S = 300.0
POLL_S = 0.25


class Answerer:
    """A thread that takes asks, oldest first. A model that nobody asks for some minutes is put away."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._model: WarmModel | None = None
        self._used_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answerer", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and the model's process; what is being answered is taken by another worker later."""
        self._stopping.set()
        model = self._model
        if model is not None:
            model.close()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._answer_next():
                    continue
            except Outage as error:
                _LOG.warning("database_away", error=str(error))
                self._stopping.wait(self._settings.sweep_s)
            except Exception as error:  # one ask that goes wrong must not silence the rest
                _LOG.error("answer_failed", error=repr(error))
                self._put_away()
            if self._model is not None and time.monotonic() - self._used_at > IDLE_S:
                self._put_away()
            self._stopping.wait(POLL_S)
        self._put_away()

    def _answer_next(self) -> bool:
        with self._database.transaction() as session:
            asked = completions.take_completion(session, patience_s=LOAD_S + self._settings.completion_wait_s)
        if asked is None:
            return False
        try:
            reply = self._hold(self._folder(asked)).ask(asked.ask, timeout_s=self._settings.completion_wait_s)
        except ReplyError as error:
            if self._stopping.is_set():
                return False
            reply = {"error": str(error)}
        self._used_at = time.monotonic()
        with self._database.transaction() as session:
            completions.answer_completion(session, asked.id, reply)
        return True

    def _folder(self, asked: Completion) -> Path:
        if asked.base_job_id is None or asked.base_step is None:
            return self._settings.models_dir / asked.model
        return artifacts.folder_path(self._settings.artifacts_dir, asked.base_job_id, asked.base_step)

    def _hold(self, folder: Path) -> WarmModel:
        if self._model is None or self._model.folder != folder or not self._model.is_alive():
            self._put_away()
            self._model = WarmModel(folder)
        return self._model

    def _put_away(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()
