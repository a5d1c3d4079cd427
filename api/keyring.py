"""Callers whose key or ticket was checked a moment ago, so that not every request asks the database. Holds no secret.

A key that was revoked in another process is refused once its entry is `KEPT_S` old; in this one, at once.
"""

from __future__ import annotations

import hashlib
import time

from api.store.keys import Caller

KEPT_S = 2.0
MAX_KEPT = 10_000


class Keyring:
    """What one API process knows of keys."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Caller, float]] = {}

    def find(self, secret: str) -> Caller | None:
        """Whoever showed this key or ticket, if that was checked lately."""
        caller, until = self._kept.get(_digest(secret), (None, 0.0))
        return caller if time.monotonic() < until else None

    def keep(self, secret: str, caller: Caller) -> None:
        """Remembers a caller, not beyond the end of what was shown."""
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        lasts_s = KEPT_S if caller.lasts_s is None else min(KEPT_S, caller.lasts_s)
        self._kept[_digest(secret)] = (caller, time.monotonic() + lasts_s)

    def forget(self) -> None:
        """Forgets everybody: a key has been revoked."""
        self._kept.clear()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
