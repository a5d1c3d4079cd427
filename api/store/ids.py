"""Identifiers: a type prefix and 128 random bits, so that none can be guessed."""

from __future__ import annotations

import secrets

FILE, JOB, EVENT, CHECKPOINT, KEY, ROLLOUT, COMPLETION = "file", "ftjob", "ftevent", "ftckpt", "key", "rollout", "cmpl"


def new_id(prefix: str) -> str:
    """A fresh id such as `ftjob-9f86d081884c7d659a2feaa0c55ad015`."""
    return f"{prefix}-{secrets.token_hex(16)}"
