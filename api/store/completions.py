"""Models that are asked: a request puts a row down, a worker takes it and writes the reply, the request picks it up.

An ask that its worker did not answer in time is taken again; what nobody fetched is forgotten after an hour.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, func, or_, select, text
from sqlalchemy.orm import Session

from api.errors import TooManyRequests
from api.store.ids import COMPLETION, new_id
from api.store.jobs import Base
from api.store.tables import Completion

MAX_WAITING = 32
KEPT = text("interval '1 hour'")


def add_completion(session: Session, tenant: str, model: str, base: Base | None, ask: dict[str, Any]) -> str:
    """Puts an ask down; its id. Raises TooManyRequests when the tenant has too many that wait."""
    session.execute(delete(Completion).where(Completion.created_at < func.now() - KEPT))
    waiting = (
        select(func.count()).select_from(Completion).where(Completion.tenant == tenant, Completion.reply.is_(None))
    )
    if (session.scalar(waiting) or 0) >= MAX_WAITING:
        raise TooManyRequests(f"{MAX_WAITING} of your prompts are waiting for an answer.", code="busy", retry_after_s=5)
    row = Completion(
        id=new_id(COMPLETION),
        tenant=tenant,
        model=model,
        base_job_id=base.job_id if base else None,
        base_step=base.step if base else None,
        ask=ask,
        state="waiting",
    )
    session.add(row)
    session.flush()
    return row.id


def take_completion(session: Session, *, patience_s: float) -> Completion | None:
    """The oldest ask that nobody answers, for this worker to answer; None when there is none."""
    lost = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, patience_s)
    is_free = or_(Completion.state == "waiting", and_(Completion.state == "taken", Completion.taken_at < lost))
    row = session.scalar(
        select(Completion).where(is_free).order_by(Completion.number).limit(1).with_for_update(skip_locked=True)
    )
    if row is not None:
        row.state, row.taken_at = "taken", session.scalars(select(func.now())).one()
    return row


def answer_completion(session: Session, completion_id: str, reply: dict[str, Any]) -> None:
    """Writes the reply, unless the request has given up or another worker has answered."""
    row = session.scalar(select(Completion).where(Completion.id == completion_id).with_for_update())
    if row is not None and row.reply is None:
        row.state, row.reply = "answered", reply


def fetch_reply(session: Session, completion_id: str) -> dict[str, Any] | None:
    """The reply, which is then forgotten; None while there is none."""
    reply = session.scalar(select(Completion.reply).where(Completion.id == completion_id))
    if reply is not None:
        drop_completion(session, completion_id)
    return reply


def drop_completion(session: Session, completion_id: str) -> None:
    """Forgets an ask."""
    session.execute(delete(Completion).where(Completion.id == completion_id))
