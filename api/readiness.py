"""The parts that the API stands on, and whether each is well.

What is wrong is told in fixed words, since who asks shows no key; the log has the rest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog

from api.dispatch import Dispatcher
from api.settings import Settings
from api.store import leases
from api.store.database import Database

KEPT_S = 1.0
_LOG = structlog.get_logger()


class Parts:
    """Asks each part at most once at a time and once a second, in threads that no request waits for."""

    def __init__(self, database: Database, dispatcher: Dispatcher, settings: Settings) -> None:
        self._database, self._dispatcher, self._settings = database, dispatcher, settings
        self._asks: dict[str, tuple[Callable[[], None], str]] = {
            "database": (lambda: database.ping(), "does not answer"),
            "broker": (lambda: dispatcher.ping(), "does not answer"),
            "storage": (self._check_storage, "cannot be written"),
            "worker": (self._check_worker, f"gave no sign of life in the last {settings.lease_s:.0f} s"),
        }
        self._told: dict[str, tuple[str, float]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """By part, "ok" or what is wrong with it; every part when none is named."""
        wanted = list(self._asks if names is None else names)
        return dict(zip(wanted, await asyncio.gather(*map(self._ask, wanted)), strict=True))

    async def _ask(self, name: str) -> str:
        async with self._turns[name]:
            word, until = self._told.get(name, ("", 0.0))
            if time.monotonic() >= until:
                word = await asyncio.to_thread(self._judge, name)
                self._told[name] = word, time.monotonic() + KEPT_S
            return word

    def _judge(self, name: str) -> str:
        check, fault = self._asks[name]
        try:
            check()
        except Exception as error:  # whatever is wrong is the answer
            _LOG.warning("part_away", part=name, error=repr(error))
            return fault
        return "ok"

    def _check_storage(self) -> None:
        folder = self._settings.files_dir
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")

    def _check_worker(self) -> None:
        with self._database.transaction() as session:
            if not leases.is_worker_alive(session, silent_s=self._settings.lease_s):
                raise LookupError("no worker is alive")
