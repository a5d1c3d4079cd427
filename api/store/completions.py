"""Models that are asked: a request puts a row down, a worker takes it and writes the reply, the request picks it up.

A worker that answers says so every second; an ask whose worker fell silent is taken again, and one whose row is gone
is no longer wanted. What nobody fetched is forgotten after an hour.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session

from api.errors import TooManyRequests
from api.store.ids import COMPLETION, new_id
from api.store.jobs import Base
from api.store.tables import Completion
from api.store.usage import hold_quotas

Source = tuple[str, str, int]
"""What a model is made from: its base's name, and the job and step of a checkpoint; empty and -1 for none."""

MAX_WAITING = 32
KEPT = text("interval '1 hour'")
_SOURCE = (Completion.model, func.coalesce(Completion.base_job_id, ""), func.coalesce(Completion.base_step, -1))


def source_of(asked: Completion) -> Source:
    """What the model that an ask wants is made from."""
    step = -1 if asked.base_step is None else asked.base_step
    return asked.model, asked.base_job_id or "", step


def new_completion_id() -> str:
    """The id of an ask to come, so that its answer can be waited for before it is put down."""
    return new_id(COMPLETION)


def add_completion(
    session: Session, tenant: str, model: str, base: Base | None, ask: dict[str, Any], *, completion_id: str
) -> None:
    """Puts an ask down. Raises TooManyRequests when the tenant has too many that wait.

    `ask` is what `stapo_core.replies` reads, and `reply_to`: the channel of the process that waits.
    """
    session.execute(delete(Completion).where(Completion.created_at < func.now() - KEPT))
    hold_quotas(session, tenant)
    waiting = (
        select(func.count()).select_from(Completion).where(Completion.tenant == tenant, Completion.reply.is_(None))
    )
    if (session.scalar(waiting) or 0) >= MAX_WAITING:
        raise TooManyRequests(f"{MAX_WAITING} of your prompts are waiting for an answer.", code="busy", retry_after_s=5)
    row = Completion(
        id=completion_id,
        tenant=tenant,
        model=model,
        base_job_id=base.job_id if base else None,
        base_step=base.step if base else None,
        ask=ask,
        state="waiting",
    )
    session.add(row)
    session.flush()


def take_completion(session: Session, *, patience_s: float, busy: Collection[Source] = ()) -> Completion | None:
    """The oldest ask that nobody answers, for this worker to answer, if not of a busy model; None for none."""
    lost = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, patience_s)
    is_free = or_(Completion.state == "waiting", (Completion.state == "taken") & (Completion.taken_at < lost))
    query = select(Completion).where(is_free)
    if busy:
        query = query.where(tuple_(*_SOURCE).not_in(busy))
    row = session.scalar(query.order_by(Completion.number).limit(1).with_for_update(skip_locked=True))
    if row is not None:
        row.state, row.taken_at = "taken", session.scalars(select(func.now())).one()
    return row


def keep_completion(session: Session, completion_id: str) -> bool:
    """Says that the ask is being answered; whether the answer is still wanted."""
    kept = (
        update(Completion)
        .where(Completion.id == completion_id, Completion.state == "taken")
        .values(taken_at=func.now())
        .returning(Completion.id)
    )
    return session.scalar(kept) is not None


def answer_completion(session: Session, completion_id: str, reply: dict[str, Any]) -> None:
    """Writes the reply, unless the request has given up or another worker has answered."""
    row = session.scalar(select(Completion).where(Completion.id == completion_id).with_for_update())
    if row is not None and row.reply is None:
        row.state, row.reply = "answered", reply


@dataclass(frozen=True)
class Standing:
    """The reply, or how many seconds ago a worker last said that it answers; None for what is not there."""

    reply: dict[str, Any] | None = None
    silent_s: float | None = None


def look_at(session: Session, completion_id: str) -> Standing:
    """Where an ask stands."""
    silent_s = func.extract("epoch", func.now() - Completion.taken_at)
    row = session.execute(select(Completion.reply, silent_s).where(Completion.id == completion_id)).one_or_none()
    return Standing() if row is None else Standing(row[0], None if row[1] is None else float(row[1]))


def drop_completion(session: Session, completion_id: str) -> None:
    """Forgets an ask."""
    session.execute(delete(Completion).where(Completion.id == completion_id))
