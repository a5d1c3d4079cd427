"""Answers kept for 24 hours by the caller's own key, so that a POST sent twice acts once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from api.errors import Conflict, Unprocessable
from api.store.tables import IdempotencyKey

KEPT = text("interval '24 hours'")
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Answer:
    """What a POST answered."""

    status: int
    body: dict[str, Any]


def find_answer(session: Session, tenant: str, key: str, request_sha256: str) -> Answer | None:
    """The stored answer to the same request, or None when the caller may act and then must `keep_answer`.

    Raises Conflict while another request with this key is under way, Unprocessable when the key stood for another
    request. The key stays locked until the transaction ends.
    """
    lock = int.from_bytes(hashlib.sha256(f"{tenant}/{key}".encode()).digest()[:8], "big", signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise Conflict(
            "A request with this Idempotency-Key is still running; try again shortly.",
            code="key_in_use",
            retry_after_s=RETRY_AFTER_S,
        )
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEPT))
    row = session.get(IdempotencyKey, (tenant, key))
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise Unprocessable(
            "This Idempotency-Key was used for another request within 24 hours; use a new key.",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        )
    return Answer(status=row.status or 200, body=row.response or {})


def keep_answer(session: Session, tenant: str, key: str, request_sha256: str, answer: Answer) -> None:
    """Stores the answer in the transaction that made it true."""
    session.add(
        IdempotencyKey(
            tenant=tenant, key=key, request_sha256=request_sha256, status=answer.status, response=answer.body
        )
    )
