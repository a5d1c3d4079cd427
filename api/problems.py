"""Every refusal leaves as problem+json with the dialect's `error` member and a request id, whoever refused.

Two layers: handlers for what our code raises, and an ASGI shell that gives each request its id, bounds its body and
rewrites what a framework answers in plain text.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import secrets
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BadRequest, FieldError, ServiceError, TooLarge, Unavailable, Unprocessable
from api.pace import is_full
from api.pointers import field_path, write_pointer
from api.schemas import DialectError, Fault, JobCreate, Problem
from api.store.database import Outage

MEDIA_TYPE = "application/problem+json"
MAX_JSON_BYTES = 4 * 2**20
MULTIPART_SLACK = 64 * 2**10
_UPLOAD = ("POST", "/v1/files")  # the one large body: it goes to disk, and is taken from who shows a good key
_ALIVE = "/healthz"  # it needs no turn, and who is refused it believes that the process is dead
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOG = structlog.get_logger()
_ERRORS = logging.getLogger("uvicorn.error")  # the server's own, where tracebacks are looked for; it shows no values

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503)
}


def install_problems(app: FastAPI, *, max_upload_bytes: int) -> None:
    """Adds the handlers and the shell."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Outage, _on_outage)
    app.add_middleware(Shell, max_upload_bytes=max_upload_bytes)


def problem_response(request: Request, error: ServiceError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The refusal as it goes over the wire."""
    problem = Problem(
        type=f"urn:stapo:error:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=request.url.path,
        code=error.code,
        param=error.param,
        request_id=request.scope.get("request_id", ""),
        errors=[Fault(pointer=fault.pointer, detail=fault.detail) for fault in error.errors],
        error=DialectError(message=error.detail, type=_dialect_type(error.status), param=error.param, code=error.code),
    )
    body = problem.model_dump(mode="json")
    return JSONResponse(body, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


async def _on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)  # noqa: S101  # registered for this type alone
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    if error.retry_after_s is not None:
        headers = {"Retry-After": str(error.retry_after_s)}
    return problem_response(request, error, headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this type alone
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        place, reason = faults[0]["loc"][-1], faults[0]["ctx"]["error"]
        return problem_response(request, BadRequest(f"The body is not JSON: {reason} at character {place}."))
    errors = [FieldError(pointer=write_pointer(_field_path(fault["loc"])), detail=_sentence(fault)) for fault in faults]
    param = ".".join(_field_path(faults[0]["loc"])) or None
    detail = errors[0].detail if len(errors) == 1 else f"{errors[0].detail} (and {len(errors) - 1} more; see errors)"
    return problem_response(request, Unprocessable(detail, param=param, errors=errors))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this type alone
    headers, detail = dict(error.headers or {}), str(error.detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods_here(request)))
        detail = f"This path knows no {request.method}; it knows {headers['Allow']}."
    elif error.status_code == HTTPStatus.NOT_FOUND:  # of the router; what a route does not find it says itself
        detail = "There is nothing at this path; GET /openapi.json lists every operation."
    return problem_response(request, _plain_error(error.status_code, detail), headers)


def _methods_here(request: Request) -> set[str]:
    """Those of every route on this path; the framework names the first route's alone."""
    here = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in here for method in getattr(route, "methods", None) or ()}


async def _on_outage(request: Request, error: Exception) -> JSONResponse:
    _LOG.warning("database_away", request_id=request.scope.get("request_id"), error=str(error))
    away = Unavailable("The database does not answer; nothing was changed. Try again shortly.", code="database_away")
    return problem_response(request, away, {"Retry-After": "5"})


def _bug(scope: Scope, error: Exception) -> JSONResponse:
    _ERRORS.error("bug in %s %s (%s)", scope["method"], scope["path"], scope["request_id"], exc_info=error)
    return problem_response(
        Request(scope), ServiceError("Something went wrong on our side; the request id finds it in the log.")
    )


class Shell:
    """Gives each request an id, bounds its body, and turns answers of 400 and above into problems."""

    def __init__(self, app: ASGIApp, *, max_upload_bytes: int) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        is_upload = (scope["method"], scope["path"]) == _UPLOAD
        limit = self._max_upload_bytes + MULTIPART_SLACK if is_upload else MAX_JSON_BYTES
        if int(headers.get("content-length") or 0) > limit:
            answer = problem_response(Request(scope), _too_large(limit), {"Connection": "close"})
            await answer(scope, receive, _stamped(send, scope))
            return
        if is_full() and scope["path"] != _ALIVE:
            answer = problem_response(Request(scope), _crowded(), {"Connection": "close", "Retry-After": "1"})
            await answer(scope, receive, _stamped(send, scope))
            return
        rewriting = _Rewriter(scope, _stamped(send, scope))
        try:
            await self._app(scope, _bounded(receive, limit), rewriting.send)
        except Exception as error:  # here, and not in the framework's outermost layer: it is counted like any answer
            if rewriting.has_started:
                raise
            await _bug(scope, error)(scope, receive, rewriting.send)


class _Rewriter:
    """Replaces the body of an answer of 400 and above that a framework gave in plain text."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._is_replaced = False
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Passes a message of the answer on."""
        self.has_started = True
        if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
            headers = MutableHeaders(raw=message["headers"])
            if headers.get("content-type", "text/plain").startswith("text/plain"):
                self._is_replaced = True
                kept = {name: headers[name] for name in ("allow", "content-range") if name in headers}
                error = _plain_error(message["status"], HTTPStatus(message["status"]).phrase)
                answer = problem_response(Request(self._scope), error, kept)
                await answer(self._scope, _nothing, self._send)
        if not self._is_replaced:
            await self._send(message)


def _stamped(send: Send, scope: Scope) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            headers["X-Request-Id"] = scope["request_id"]
            for name, value in scope.get("rate_headers", {}).items():
                headers[name] = value
            is_refusal = HTTPStatus.BAD_REQUEST <= message["status"] < HTTPStatus.INTERNAL_SERVER_ERROR
            if is_refusal and "Retry-After" not in headers:
                headers["x-should-retry"] = "false"  # a refusal stays one; clients of the dialect read this
        await send(message)

    return stamped


def _bounded(receive: Receive, limit: int) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit).detail)
        return message

    return bounded


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _crowded() -> Unavailable:
    return Unavailable("More requests wait than can be answered in time; try again shortly.", code="overloaded")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


def _plain_error(status: int, detail: str) -> ServiceError:
    if status == TooLarge.status:
        return TooLarge(detail)
    phrase = HTTPStatus(status).phrase
    error = ServiceError(detail, code=phrase.lower().replace(" ", "_"))
    error.status, error.title = status, phrase
    return error


def _dialect_type(status: int) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return "authentication_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


# --- sentences ----------------------------------------------------------------------------------------------------


def _sentence(fault: dict[str, Any]) -> str:
    name = ".".join(_field_path(fault["loc"])) or "the body"
    if fault["loc"] == ("body",) and isinstance(fault.get("input"), bytes):
        return "The body is not read as JSON; send it with 'Content-Type: application/json'."
    if fault["type"] == "missing":
        return f"{name} is missing; add it."
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _KNOWN_FIELDS, n=1)
        return f"{name} is not a known field; " + (f"did you mean '{near[0]}'?" if near else "remove it.")
    given = json.dumps(fault.get("input"), default=str)
    shown = f" (given: {given[:80]})" if not isinstance(fault.get("input"), dict | list) else ""
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}{shown}"


def _field_path(loc: tuple[str | int, ...]) -> list[str]:
    return field_path(loc[1:])  # without where the value stood: body, query, path, header


def _collect(schema: dict[str, Any]) -> set[str]:
    names = set(schema.get("properties", {}))
    for part in schema.get("$defs", {}).values():
        names |= _collect(part)
    return names


_KNOWN_FIELDS = sorted(_collect(JobCreate.model_json_schema()))
