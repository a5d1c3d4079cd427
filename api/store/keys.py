"""Bearer keys and stream tickets. Only hashes are stored: both are 256 random bits, so a fast hash is enough.

A key is `stapo_`, 43 random characters and the CRC-32 of what stands before it, so that a mistyped one is told apart.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Double, cast, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from api.errors import Conflict, NotFound, Unauthorized
from api.store.ids import KEY, new_id
from api.store.pages import Cursor, Order, Page, read_page
from api.store.tables import ApiKey, Job, StreamTicket

PREFIX = "stapo_"
SHOWN = len(PREFIX) + 6
_RANDOM_BYTES = 32
_LENGTH = len(PREFIX) + 43 + 8

Scope = Literal["jobs:read", "jobs:write", "artifacts:read", "admin"]
ALL_SCOPES: tuple[Scope, ...] = ("jobs:read", "jobs:write", "artifacts:read", "admin")
TICKET_SCOPES: tuple[Scope, ...] = ("jobs:read", "artifacts:read")


@dataclass(frozen=True)
class Caller:
    """Who asks: every read and write is limited to this tenant and these scopes, and for a ticket to its one job."""

    tenant: str
    scopes: frozenset[str] = frozenset(ALL_SCOPES)
    key_id: str | None = None
    """The key that was shown, or that the ticket was asked for with."""
    job_id: str | None = None
    lasts_s: float | None = None
    """Seconds until what was shown ends; None for never."""


def create_key(
    session: Session, *, tenant: str, name: str, scopes: Iterable[Scope] = ALL_SCOPES, lifetime_s: float | None = None
) -> str:
    """Adds a key and returns its text, which is never seen again."""
    return add_key(session, tenant=tenant, name=name, scopes=scopes, lifetime_s=lifetime_s)[1]


def add_key(
    session: Session, *, tenant: str, name: str, scopes: Iterable[Scope], lifetime_s: float | None
) -> tuple[ApiKey, str]:
    """Adds a key; its row, and its text, which is never seen again."""
    stem = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    secret = stem + _checksum(stem)
    now = session.scalars(select(func.now())).one()
    row = ApiKey(
        id=new_id(KEY),
        tenant=tenant,
        name=name,
        key_sha256=_sha256(secret),
        prefix=secret[:SHOWN],
        scopes=[scope for scope in ALL_SCOPES if scope in set(scopes)],
        expires_at=None if lifetime_s is None else now + timedelta(seconds=lifetime_s),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, secret


def has_keys(session: Session) -> bool:
    """Whether any key was ever made."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def list_keys(session: Session, tenant: str, *, after: str | None, limit: int, order: Order) -> Page[ApiKey]:
    """The tenant's keys by age, revoked ones included."""
    number = get_key(session, tenant, after, param="after").number if after else None
    query = select(ApiKey).where(ApiKey.tenant == tenant)
    return read_page(session, query, ApiKey.number, Cursor(number, limit, order))


def get_key(session: Session, tenant: str, key_id: str, *, param: str | None = None) -> ApiKey:
    """Raises NotFound when the tenant has no such key."""
    row = session.scalar(select(ApiKey).where(ApiKey.tenant == tenant, ApiKey.id == key_id))
    if row is None:
        raise NotFound(f"There is no API key '{key_id}'.", code="key_not_found", param=param)
    return row


def revoke_key(session: Session, caller: Caller, key_id: str) -> ApiKey:
    """Ends a key and its tickets, from the next request on.

    Raises Conflict for the key that asks: nobody locks themselves out.
    """
    row = get_key(session, caller.tenant, key_id)
    if row.id == caller.key_id:
        raise Conflict("This is the key that you are using; revoke it with another one.", code="key_in_use")
    if row.revoked_at is None:
        row.revoked_at = session.scalars(select(func.now())).one()
    return row


def find_caller(session: Session, secret: str) -> Caller:
    """Raises Unauthorized unless `secret` is a key that is in force."""
    if len(secret) == _LENGTH and secret.startswith(PREFIX) and _checksum(secret[:-8]) != secret[-8:]:
        raise Unauthorized(
            "This API key is mistyped: its checksum does not fit. Copy it again.", code="mistyped_api_key"
        )
    row = session.execute(
        select(ApiKey, _seconds_until(ApiKey.expires_at)).where(
            ApiKey.key_sha256 == _sha256(secret), ApiKey.revoked_at.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise Unauthorized("This API key is not known or was revoked; check STAPO_API_KEY or the Authorization header.")
    key, lasts_s = row
    if lasts_s is not None and lasts_s <= 0:
        raise Unauthorized("This API key has expired; ask for a new one.", code="expired_api_key")
    _note_use(session, key.id)
    return Caller(key.tenant, scopes=frozenset(key.scopes), key_id=key.id, lasts_s=lasts_s)


def create_ticket(session: Session, job: Job, maker: Caller, *, lifetime_s: float) -> tuple[str, datetime]:
    """Adds a ticket to one job's streams and downloads; returns its text and when it ends: with its maker's key."""
    session.execute(delete(StreamTicket).where(StreamTicket.expires_at < func.now()))
    ticket = secrets.token_urlsafe(32)
    now = session.scalars(select(func.now())).one()
    expires_at = now + timedelta(seconds=lifetime_s if maker.lasts_s is None else min(lifetime_s, maker.lasts_s))
    session.add(StreamTicket(ticket_sha256=_sha256(ticket), job_id=job.id, key_id=maker.key_id, expires_at=expires_at))
    return ticket, expires_at


def find_ticket(session: Session, ticket: str) -> Caller:
    """Raises Unauthorized unless the ticket is in force, and the key that it was asked for with is not revoked."""
    row = session.execute(
        select(Job.tenant, Job.id, StreamTicket.key_id, _seconds_until(StreamTicket.expires_at).label("lasts_s"))
        .join(StreamTicket, StreamTicket.job_id == Job.id)
        .outerjoin(ApiKey, ApiKey.id == StreamTicket.key_id)
        .where(
            StreamTicket.ticket_sha256 == _sha256(ticket),
            StreamTicket.expires_at > func.now(),
            ApiKey.revoked_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        raise Unauthorized(
            "This stream ticket is not known, has expired, or its key was revoked; ask for a new one.",
            code="ticket_expired",
        )
    scopes = frozenset(TICKET_SCOPES)
    return Caller(row.tenant, scopes=scopes, key_id=row.key_id, job_id=row.id, lasts_s=row.lasts_s)


def find_ended(session: Session, key_ids: Iterable[str]) -> set[str]:
    """Those of these keys that were revoked or have expired."""
    ended = or_(ApiKey.revoked_at.is_not(None), ApiKey.expires_at <= func.now())
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(key_ids), ended)))


def _note_use(session: Session, key_id: str) -> None:
    """Once a minute at most, and never waiting for another request that notes it too."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - text("interval '1 minute'"))
    found = session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, stale).with_for_update(skip_locked=True))
    if found is not None:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=func.now()))


def _seconds_until(moment: Any) -> ColumnElement[float]:
    """By the database's clock."""
    return cast(func.extract("epoch", moment - func.now()), Double)


def _checksum(stem: str) -> str:
    return f"{zlib.crc32(stem.encode()):08x}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
