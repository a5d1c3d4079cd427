"""What every outgoing object shares: lists, refusals, health, and how times are written."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item", bound=BaseModel)


class Wire(BaseModel):
    """What every outgoing object shares: each field's sentence is its documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Fault(Wire):
    """One fault in the input."""

    pointer: str
    """JSON pointer (RFC 6901) to the value at fault."""
    detail: str
    """What is wrong and how to mend it."""


class DialectError(Wire):
    """The same refusal in the dialect's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(Wire):
    """A refusal (RFC 9457), with the dialect's `error` member beside it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    param: str | None = None
    request_id: str
    errors: list[Fault] = []
    error: DialectError


class ListOf(Wire, Generic[Item]):
    """A page of a list; `after=<last_id>` asks for the next one."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None

    @classmethod
    def of(cls, data: list[Item], *, has_more: bool) -> Self:
        """The page of these things, each of which has an id."""
        ids = [getattr(each, "id") for each in data[:1] + data[-1:]]  # noqa: B009  # no type says so
        return cls(data=data, has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)


class Health(Wire):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(Wire):
    """Whether jobs can be taken and run, and if not, what is missing."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
    """"ok" or what is wrong with it, for each part that was asked: database, broker, storage, worker."""


def epoch(moment: datetime) -> int:
    """Seconds since the epoch, as the dialect has its times."""
    return int(moment.timestamp())
