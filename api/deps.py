"""Annotated aliases that make a route's signature read like a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from api.answers import Answers
from api.dispatch import Dispatcher
from api.errors import Forbidden, NotFound, Unauthorized
from api.grading import GraderDesk
from api.instruments import Instruments
from api.keyring import Keyring, Kind
from api.rates import Rates
from api.readiness import Parts
from api.relay import Relay
from api.settings import Settings
from api.store import keys
from api.store.database import Database, Session
from api.store.keys import Caller, Scope
from api.store.pages import Order
from api.streams import Streams

_BEARER = HTTPBearer(auto_error=False, description="An API key; the first one lies in STAPO_HOME/api_key.")
_TICKET = APIKeyQuery(
    name="ticket", scheme_name="StreamTicket", auto_error=False, description="A job's stream ticket, in place of a key."
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
Ticket = Annotated[str | None, Depends(_TICKET)]


def _part(name: str) -> Any:
    """What the application keeps under a name."""

    async def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(find)


DatabaseDep = Annotated[Database, _part("database")]
SettingsDep = Annotated[Settings, _part("settings")]
DispatcherDep = Annotated[Dispatcher, _part("dispatcher")]
GraderDeskDep = Annotated[GraderDesk, _part("grader_desk")]
InstrumentsDep = Annotated[Instruments, _part("instruments")]
PartsDep = Annotated[Parts, _part("parts")]
StreamsDep = Annotated[Streams, _part("streams")]
RelayDep = Annotated[Relay, _part("relay")]
AnswersDep = Annotated[Answers, _part("answers")]
KeyringDep = Annotated[Keyring, _part("keyring")]


async def _caller(request: Request, bearer: Bearer) -> Caller:
    if bearer is None:
        _count_refusal(request)
        raise Unauthorized("Send your API key as 'Authorization: Bearer <key>'.", code="missing_api_key")
    known: Caller | None = getattr(request.state, "caller", None)
    return known or await _identify(request, _Shown("key", bearer.credentials, keys.find_caller))


async def _viewer(request: Request, bearer: Bearer, ticket: Ticket) -> Caller:
    if ticket is None:
        return await _caller(request, bearer)
    return await _identify(request, _Shown("ticket", ticket, keys.find_ticket))


@dataclass(frozen=True)
class _Shown:
    """A key or a ticket as it was shown, and how whoever holds it is looked up."""

    kind: Kind
    secret: str
    find: Callable[[Session, str], Caller]


async def _identify(request: Request, shown: _Shown) -> Caller:
    keyring: Keyring = request.app.state.keyring
    caller = keyring.find(shown.kind, shown.secret)
    if caller is None:
        since = keyring.round
        try:
            caller = await run_in_threadpool(_look_up, request.app.state.database, shown)
        except Unauthorized:
            _count_refusal(request)
            raise
        keyring.keep(shown.kind, shown.secret, caller, since=since)
    if (shown.kind == "ticket") != (caller.job_id is not None):  # whoever mixed them up: a ticket is never a key
        raise Unauthorized("A stream ticket stands in `?ticket=`, and an API key in the Authorization header.")
    rates: Rates = request.app.state.rates
    rate = rates.count_request(caller.key_id or f"ticket of {caller.job_id}")
    if rate is not None:
        request.scope["rate_headers"] = rate.headers()
    return caller


def _count_refusal(request: Request) -> None:
    rates: Rates = request.app.state.rates
    rates.count_refusal(request.client.host if request.client else "unknown")


def _look_up(database: Database, shown: _Shown) -> Caller:
    with database.transaction() as session:
        return shown.find(session, shown.secret)


class KeyFirst(APIRoute):
    """A route that takes no byte of a body before it knows whose it is; the framework reads the body first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own, behind a look at the key."""
        handle = super().get_route_handler()

        async def check_first(request: Request) -> Response:
            request.state.caller = await _caller(request, await _BEARER(request))
            return await handle(request)

        return check_first


def _needs(*scopes: Scope, of: Callable[..., Awaitable[Caller]] = _caller) -> Callable[..., Awaitable[Caller]]:
    """A caller whose key has all of `scopes`. Raises Forbidden naming what it lacks."""

    async def check(caller: Caller = Depends(of)) -> Caller:  # noqa: B008  # a closure's names are unknown in annotations
        lacking = sorted(set(scopes) - caller.scopes)
        if lacking:
            raise Forbidden(f"This API key lacks the scope {', '.join(lacking)}; use one that has it.")
        return caller

    check.scopes = scopes  # type: ignore[attr-defined]  # the document tells them
    return check


ReaderDep = Annotated[Caller, Depends(_needs("jobs:read"))]
"""Whoever holds a bearer key that may read jobs."""
WriterDep = Annotated[Caller, Depends(_needs("jobs:write"))]
"""Whoever may start and stop jobs, and upload."""
DownloaderDep = Annotated[Caller, Depends(_needs("artifacts:read"))]
"""Whoever may read files."""
TicketMakerDep = Annotated[Caller, Depends(_needs(*keys.TICKET_SCOPES))]
"""Whoever has all that a ticket gives."""
AdminDep = Annotated[Caller, Depends(_needs("admin"))]
"""Whoever may make and revoke keys."""
ViewerDep = Annotated[Caller, Depends(_needs("jobs:read", of=_viewer))]
"""A reader, or a browser with a ticket; check the job with `admit`."""
FetcherDep = Annotated[Caller, Depends(_needs("artifacts:read", of=_viewer))]
"""A downloader, or a browser with a ticket; check the job with `admit`."""


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
