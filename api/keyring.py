"""Callers whose key or ticket was checked a moment ago, so that not every request asks the database. Holds no secret.

A key that was revoked in another process is refused once its entry is `KEPT_S` old; in this one, at once.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Literal

from api.store.keys import Caller

KEPT_S = 2.0
MAX_KEPT = 10_000

Kind = Literal["key", "ticket"]
"""How a secret was shown: a ticket that is shown as a key is none, whoever has just looked at it as a ticket."""


class Keyring:
    """What one API process knows of keys. Any thread may ask it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Kind, bytes], tuple[Caller, float]] = {}
        self._lock = threading.Lock()
        self.round = 0
        """Counts revocations: a look-up that began in an earlier round may have read a key that has ended since."""

    def find(self, kind: Kind, secret: str) -> Caller | None:
        """Whoever showed this key or ticket, if that was checked lately."""
        caller, until = self._kept.get((kind, _digest(secret)), (None, 0.0))
        return caller if time.monotonic() < until else None

    def keep(self, kind: Kind, secret: str, caller: Caller, *, since: int) -> None:
        """Remembers a caller who was looked up in round `since`, not beyond the end of what was shown."""
        lasts_s = KEPT_S if caller.lasts_s is None else min(KEPT_S, caller.lasts_s)
        with self._lock:
            if since != self.round:
                return
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[kind, _digest(secret)] = (caller, time.monotonic() + lasts_s)

    def forget(self) -> None:
        """Forgets everybody: a key has been revoked."""
        with self._lock:
            self.round += 1
            self._kept.clear()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
