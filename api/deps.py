"""Annotated aliases that make a route's signature read like a sentence."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.dispatch import Dispatcher
from api.errors import NotFound, Unauthorized
from api.settings import Settings
from api.store import keys
from api.store.database import Database
from api.store.keys import Caller
from api.store.pages import Order
from api.streams import Streams

_BEARER = HTTPBearer(auto_error=False, description="An API key; the first one lies in STAPO_HOME/api_key.")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.app.state.dispatcher
    return dispatcher


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


DatabaseDep = Annotated[Database, Depends(_database)]
SettingsDep = Annotated[Settings, Depends(_settings)]
DispatcherDep = Annotated[Dispatcher, Depends(_dispatcher)]
StreamsDep = Annotated[Streams, Depends(_streams)]


def _caller(database: DatabaseDep, bearer: Bearer) -> Caller:
    if bearer is None:
        raise Unauthorized("Send your API key as 'Authorization: Bearer <key>'.", code="missing_api_key")
    with database.transaction() as session:
        return keys.find_caller(session, bearer.credentials)


def _viewer(
    database: DatabaseDep,
    bearer: Bearer,
    ticket: Annotated[str | None, Query(description="A stream ticket, in place of the key.")] = None,
) -> Caller:
    if ticket is None:
        return _caller(database, bearer)
    with database.transaction() as session:
        return keys.find_ticket(session, ticket)


CallerDep = Annotated[Caller, Depends(_caller)]
"""Whoever holds the bearer key."""
ViewerDep = Annotated[Caller, Depends(_viewer)]
"""The same, or a browser with a ticket; check the job with `admit`."""


def admit(viewer: Caller, job_id: str) -> None:
    """Raises NotFound when the viewer's ticket is for another job."""
    if viewer.job_id not in (None, job_id):
        raise NotFound(f"There is no job '{job_id}' for this ticket.", code="job_not_found")


After = Annotated[str | None, Query(description="The id behind which the page starts.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of a page.")]
OrderDep = Annotated[Order, Query(description="desc: newest first.")]
IdempotencyKeyDep = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and request give the stored answer for 24 hours, instead of acting twice.",
    ),
]
