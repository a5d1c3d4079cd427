"""What the service refuses and how it says so: one tree of exceptions, free of any framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One fault in the input: a JSON pointer to it and a sentence with the remedy."""

    pointer: str
    detail: str


class ServiceError(Exception):
    """A refusal: an HTTP status, a stable code, a sentence and, if one field is at fault, its name.

    `retry_after_s` says when to come back, where time alone helps.
    """

    status = 500
    title = "Internal error"
    code = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        param: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.param = param
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s


class BadRequest(ServiceError):
    """The request cannot be read."""

    status, title, code = 400, "Bad request", "bad_request"


class Unauthorized(ServiceError):
    """No key, or one that is not ours."""

    status, title, code = 401, "Unauthorized", "invalid_api_key"


class Forbidden(ServiceError):
    """The key is good and its scopes do not reach this far."""

    status, title, code = 403, "Forbidden", "insufficient_scope"


class TooManyRequests(ServiceError):
    """A rate or a quota is used up."""

    status, title, code = 429, "Too many requests", "rate_limit_exceeded"


class NotFound(ServiceError):
    """It does not exist, or it is another tenant's: the two answers are the same."""

    status, title, code = 404, "Not found", "not_found"


class Conflict(ServiceError):
    """The state of the resource does not allow it."""

    status, title, code = 409, "Conflict", "conflict"


class PreconditionFailed(ServiceError):
    """The resource has changed since the caller read it."""

    status, title, code = 412, "Precondition failed", "precondition_failed"


class TooLarge(ServiceError):
    """The body is larger than the operator allows."""

    status, title, code = 413, "Payload too large", "payload_too_large"


class RangeNotSatisfiable(ServiceError):
    """The range asked for lies outside the file."""

    status, title, code = 416, "Range not satisfiable", "range_not_satisfiable"


class Unprocessable(ServiceError):
    """The request was understood and its content is refused, field by field."""

    status, title, code = 422, "Unprocessable content", "invalid_value"


class Unavailable(ServiceError):
    """Something the service leans on does not answer."""

    status, title, code = 503, "Service unavailable", "unavailable"


class Fenced(Exception):
    """A write named a fence that is no longer the job's: the writer is a ghost and must stop."""
