"""Answers prompts beside the jobs: some models held warm, each answering one ask at a time; the least used makes room.

An ask is a row: it is kept alive while it is answered, and its answer is written to it. The pieces that travel
meanwhile are a convenience, numbered, and may be lost.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from api.relay import Publisher
from api.settings import Settings
from api.store import artifacts, completions
from api.store.completions import Source, source_of
from api.store.database import Database, Outage
from api.store.tables import Completion
from worker.replies import ReplyError, WarmModel, Withdrawn

_LOG = structlog.get_logger()
IDLE_S = 300.0
POLL_S = 0.1
LOST_S = 15.0
"""An ask whose worker has not said for so long that it is answering is taken by another."""
KEEP_S = 1.0


class Answerer:
    """A thread that takes asks, oldest first, and one more for each of `models` that answers."""

    def __init__(self, database: Database, settings: Settings, models: WarmModels) -> None:
        self._database = database
        self._settings = settings
        self._models = models
        self._publisher = Publisher(settings.broker_url)
        self._busy: set[Source] = set()
        self._stopping = threading.Event()
        self._lanes = ThreadPoolExecutor(settings.warm_models, thread_name_prefix="answer")
        self._thread = threading.Thread(target=self._run, name="answerer", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the threads; what is being answered is taken by another worker later."""
        self._stopping.set()
        self._thread.join(timeout=10.0)
        self._lanes.shutdown(wait=True, cancel_futures=True)
        self._publisher.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._take_next():
                    continue
                self._models.drop_idle(IDLE_S)
            except Outage as error:
                _LOG.warning("database_away", error=str(error))
                self._stopping.wait(self._settings.sweep_s)
            except Exception:  # a worker that answers no more would be up, and deaf
                _LOG.exception("answering_failed")
                self._stopping.wait(self._settings.sweep_s)
            self._stopping.wait(POLL_S)

    def _take_next(self) -> bool:
        busy = set(self._busy)
        if len(busy) >= self._settings.warm_models:
            return False
        with self._database.transaction() as session:
            asked = completions.take_completion(session, patience_s=LOST_S, busy=busy)
        if asked is None:
            return False
        self._busy.add(source_of(asked))
        self._lanes.submit(self._answer, asked)
        return True

    def _answer(self, asked: Completion) -> None:
        source = source_of(asked)
        wire = _Wire(self._publisher, asked)
        try:
            self._write(asked, self._draw(asked, wire))
        except Withdrawn:
            pass
        except Outage as error:  # the row stays taken, and is taken again once it has been silent for long enough
            _LOG.warning("database_away", error=str(error))
        except Exception as error:  # one ask that goes wrong must not silence the rest
            _LOG.error("answer_failed", error=repr(error))
        finally:
            self._busy.discard(source)
            wire.send(done=True)

    def _draw(self, asked: Completion, wire: _Wire) -> dict[str, Any]:
        keeper = _Keeper(self._database, asked.id, self._stopping)

        def wait() -> None:  # a model that nobody waits for any more is loaded all the same: who asks again finds it
            wire.send(stage="loading")
            if self._stopping.is_set():
                raise Withdrawn
            keeper.is_wanted()

        try:
            with self._models.hold(source_of(asked), self._folder(asked), on_wait=wait) as model:
                return model.ask(
                    asked.ask | {"id": asked.id},
                    tell=lambda pieces: wire.send(pieces=pieces),
                    is_wanted=keeper.is_wanted,
                    silence_s=self._settings.completion_wait_s,
                )
        except ReplyError as error:
            return {"error": str(error)}

    def _write(self, asked: Completion, reply: dict[str, Any]) -> None:
        with self._database.transaction() as session:
            completions.answer_completion(session, asked.id, reply)

    def _folder(self, asked: Completion) -> Path:
        if asked.base_job_id is None or asked.base_step is None:
            return self._settings.models_dir / asked.model
        return artifacts.folder_path(self._settings.artifacts_dir, asked.base_job_id, asked.base_step)


@dataclass
class _Held:
    """A model in memory, and whether it answers just now."""

    model: WarmModel
    used_at: float
    is_busy: bool = True


class WarmModels:
    """Processes that hold a model each, the least recently used first. A model that answers is never put away."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Source, _Held] = OrderedDict()
        self._num_loading = 0
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, source: Source, folder: Path, *, on_wait: Callable[[], None]) -> Iterator[WarmModel]:
        """The model, loaded if it is not, in place of the least recently used. Raises ReplyError."""
        with self._lock:
            held = self._held.pop(source, None)
            if held is not None and held.model.is_alive():
                held.is_busy = True
                self._held[source] = held
                leaving = []
            else:
                leaving, held = [held] if held else [], None
        self._close(leaving)
        if held is None:
            held = self._load(source, folder, on_wait)
        try:
            yield held.model
        finally:
            held.is_busy, held.used_at = False, time.monotonic()

    def drop_idle(self, idle_s: float) -> None:
        """Puts away what nobody has asked for some time."""
        since = time.monotonic() - idle_s
        with self._lock:
            idle = [source for source, held in self._held.items() if not held.is_busy and held.used_at < since]
            leaving = [self._held.pop(source) for source in idle]
        self._close(leaving)

    def close(self) -> None:
        """Puts all of them away, those that answer too."""
        with self._lock:
            leaving = list(self._held.values())
            self._held.clear()
        self._close(leaving)

    def _load(self, source: Source, folder: Path, on_wait: Callable[[], None]) -> _Held:
        with self._lock:
            self._num_loading += 1
            idle = [name for name, each in self._held.items() if not each.is_busy]
            num_leaving = max(0, len(self._held) + self._num_loading - self._most)
            leaving = [self._held.pop(name) for name in idle[:num_leaving]]
        held = None
        try:
            self._close(leaving)
            held = _Held(WarmModel(folder, on_wait=on_wait), time.monotonic())
        finally:
            with self._lock:  # at no moment it is neither loading nor held: another would be let in beside it
                self._num_loading -= 1
                if held is not None:
                    self._held[source] = held
        return held

    def _close(self, leaving: Iterable[_Held]) -> None:
        for held in leaving:
            held.model.close()


class _Keeper:
    """Says once a second that an ask is being answered, and learns whether it still should be."""

    def __init__(self, database: Database, completion_id: str, stopping: threading.Event) -> None:
        self._database = database
        self._completion_id = completion_id
        self._stopping = stopping
        self._is_wanted = True
        self._kept_at = 0.0

    def is_wanted(self) -> bool:
        if time.monotonic() - self._kept_at > KEEP_S:
            try:
                with self._database.transaction() as session:
                    self._is_wanted = completions.keep_completion(session, self._completion_id)
            except Outage:
                return True  # the answer may still be wanted when the database is back
            self._kept_at = time.monotonic()
        return self._is_wanted and not self._stopping.is_set()


class _Wire:
    """Numbers what is sent about one ask; `run` tells this answer from one that another worker began."""

    def __init__(self, publisher: Publisher, asked: Completion) -> None:
        self._publisher = publisher
        self._asked = asked
        self._run = uuid.uuid4().hex[:12]
        self._number = 0

    def send(self, **message: Any) -> None:
        if channel := self._asked.ask.get("reply_to"):
            named = {"name": self._asked.id, "run": self._run, "number": self._number, **message}
            self._publisher.publish(channel, named)
            self._number += 1
