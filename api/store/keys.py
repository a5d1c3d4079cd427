"""Bearer keys and stream tickets. Only hashes are stored: both are 256 random bits, so a fast hash is enough."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.errors import Unauthorized
from api.store.ids import KEY, new_id
from api.store.tables import ApiKey, Job, StreamTicket

PREFIX = "stapo_"


@dataclass(frozen=True)
class Caller:
    """Who asks: every read and write is limited to this tenant, and for a ticket to its one job."""

    tenant: str
    job_id: str | None = None


def create_key(session: Session, *, tenant: str, name: str) -> str:
    """Adds a key and returns its text, which is never seen again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    session.add(ApiKey(id=new_id(KEY), tenant=tenant, name=name, key_sha256=_sha256(secret)))
    return secret


def has_keys(session: Session) -> bool:
    """Whether any key was ever made."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def find_caller(session: Session, secret: str) -> Caller:
    """Raises Unauthorized unless `secret` is a key that is in force."""
    tenant = session.scalar(
        select(ApiKey.tenant).where(ApiKey.key_sha256 == _sha256(secret), ApiKey.revoked_at.is_(None))
    )
    if tenant is None:
        raise Unauthorized("This API key is not known or was revoked; check STAPO_API_KEY or the Authorization header.")
    return Caller(tenant)


def create_ticket(session: Session, job: Job, *, lifetime_s: float) -> tuple[str, datetime]:
    """Adds a ticket to one job's streams and downloads; returns its text and when it ends."""
    session.execute(delete(StreamTicket).where(StreamTicket.expires_at < func.now()))
    ticket = secrets.token_urlsafe(32)
    now = session.scalars(select(func.now())).one()
    expires_at = now + timedelta(seconds=lifetime_s)
    session.add(StreamTicket(ticket_sha256=_sha256(ticket), job_id=job.id, expires_at=expires_at))
    return ticket, expires_at


def find_ticket(session: Session, ticket: str) -> Caller:
    """Raises Unauthorized unless the ticket is in force."""
    row = session.execute(
        select(Job.tenant, Job.id)
        .join(StreamTicket, StreamTicket.job_id == Job.id)
        .where(StreamTicket.ticket_sha256 == _sha256(ticket), StreamTicket.expires_at > func.now())
    ).one_or_none()
    if row is None:
        raise Unauthorized("This stream ticket is not known or has expired; ask for a new one.", code="ticket_expired")
    return Caller(tenant=row.tenant, job_id=row.id)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
