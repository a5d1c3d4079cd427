"""Answers kept for 24 hours by the caller's own key, so that a POST sent twice acts once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.errors import Conflict, Unprocessable
from api.store.tables import IdempotencyKey

KEPT = text("interval '24 hours'")
RETRY_AFTER_S = 1
SWEPT = 100
"""Old answers that a new one takes along, whoever's they are; what another transaction holds is left to it."""


@dataclass(frozen=True)
class Once:
    """A request and the key that its caller gave it; without one it acts each time, and no answer is kept."""

    tenant: str
    key: str | None
    request_sha256: str

    @classmethod
    def of(cls, tenant: str, key: str | None, request: str) -> Once:
        """`request` is what must be the same for the answer to be the same."""
        return cls(tenant, key, hashlib.sha256(request.encode()).hexdigest())

    def find_answer(self, session: Session) -> dict[str, Any] | None:
        """The stored answer to the same request, or None when the caller may act and then must `keep_answer`.

        Raises Conflict while another request with this key is under way, Unprocessable when the key stood for another
        request. The key stays locked until the transaction ends.
        """
        if self.key is None:
            return None
        lock = int.from_bytes(hashlib.sha256(f"{self.tenant}/{self.key}".encode()).digest()[:8], "big", signed=True)
        if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
            raise Conflict(
                "A request with this Idempotency-Key is still running; try again shortly.",
                code="key_in_use",
                retry_after_s=RETRY_AFTER_S,
            )
        row = session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.tenant == self.tenant,
                IdempotencyKey.key == self.key,
                IdempotencyKey.created_at >= func.now() - KEPT,
            )
        )
        if row is None:
            return None
        if row.request_sha256 != self.request_sha256:
            raise Unprocessable(
                "This Idempotency-Key was used for another request within 24 hours; use a new key.",
                code="idempotency_key_reused",
                param="Idempotency-Key",
            )
        return row.response

    def keep_answer(self, session: Session, status: int, body: dict[str, Any]) -> None:
        """Stores the answer in the transaction that made it true, in place of one that is too old."""
        if self.key is None:
            return
        kept = {"request_sha256": self.request_sha256, "status": status, "response": body, "created_at": func.now()}
        session.execute(
            insert(IdempotencyKey)
            .values(tenant=self.tenant, key=self.key, **kept)
            .on_conflict_do_update(index_elements=["tenant", "key"], set_=kept)
        )
        name = tuple_(IdempotencyKey.tenant, IdempotencyKey.key)
        old = select(IdempotencyKey.tenant, IdempotencyKey.key).where(IdempotencyKey.created_at < func.now() - KEPT)
        session.execute(delete(IdempotencyKey).where(name.in_(old.limit(SWEPT).with_for_update(skip_locked=True))))
