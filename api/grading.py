"""Tries a grader on one sample, in the API's own process. Symbolic algebra runs in children of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from api.errors import Unavailable, Unprocessable
from stapo_core.config import Grader
from stapo_core.graders import build_grader, item_fields
from stapo_core.graders.templates import TemplateError

if TYPE_CHECKING:
    from stapo_core.batch import Group

AT_ONCE = 2
WAIT_S = 30.0


@dataclass(frozen=True)
class Item:
    """The row that a sample answers."""

    item: Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """A response's text."""

    text: str


@dataclass(frozen=True)
class Try:
    """What graders read of a group of responses, without tensors."""

    prompt: Item
    responses: tuple[Sample, ...]
    rewards: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A reward, the kind of trouble where it could not be judged, and how long it took."""

    reward: float
    error: str | None
    seconds: float


class GraderDesk:
    """Lets few graders run at a time: each may start processes."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def run(self, grader: Grader, item: Mapping[str, Any], text: str) -> Outcome:
        """Scores one text. Raises Unprocessable for a template that names nothing, and Unavailable when crowded."""
        with self._place():
            started = time.perf_counter()
            pool = build(grader)
            try:
                tried = Try(Item(item), (Sample(text),))
                (graded,) = pool.grade([cast("Group", tried)])
            except TemplateError as error:
                raise Unprocessable(str(error), code="invalid_grader", param="item") from error
            finally:
                pool.close()
            error_kind = next(iter(pool.take_errors()), None)
            return Outcome(graded.rewards[0], error_kind, time.perf_counter() - started)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=WAIT_S):
            raise Unavailable("Too many graders are being tried at this moment; try again shortly.", code="busy")
        try:
            yield
        finally:
            self._places.release()


def build(grader: Grader) -> Any:
    """The grader, ready to score. Raises Unprocessable for an unknown template variable."""
    check(grader)
    return build_grader(grader)


def check(grader: Grader) -> list[str]:
    """The row fields that a grader reads. Raises Unprocessable for an unknown template variable."""
    try:
        return sorted(item_fields(grader))
    except TemplateError as error:
        raise Unprocessable(str(error), code="invalid_grader", param="grader") from error
