"""Tries a grader on one sample, in the API's own process. Symbolic algebra runs in children of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from api.errors import Unavailable, Unprocessable
from api.pace import run_slow
from stapo_core.config import Grader, MultiGrader
from stapo_core.graders import GraderPool, UserCodeRefused, build_grader, check_user_code, item_fields
from stapo_core.graders.children import NotStarted
from stapo_core.graders.judges import JudgesError, check_judges
from stapo_core.graders.score import Sample, Verdicts
from stapo_core.graders.templates import TemplateError

AT_ONCE = 2
WAIT_S = 30.0
MOST_WAITING = 32
"""Who comes when so many wait is told so at once."""


@dataclass(frozen=True)
class Outcome:
    """A reward, the trouble where it could not be judged, the limit that was met, its parts, and the time."""

    reward: float
    error: str | None
    note: str | None
    parts: dict[str, float]
    seconds: float


class GraderDesk:
    """Lets few graders run at a time: each may start processes. Who waits for a place holds no thread."""

    def __init__(self, *, allows_user_code: bool) -> None:
        self._allows_user_code = allows_user_code
        self._places = asyncio.Semaphore(AT_ONCE)
        self._num_waiting = 0

    async def run(self, grader: Grader, item: Mapping[str, Any], text: str) -> Outcome:
        """Scores one text. Raises Unprocessable for a template that names nothing, and Unavailable when crowded."""
        started = time.perf_counter()
        verdicts = await self.judge(grader, [(item, text)])
        (score,) = verdicts.total
        parts = {name: part[0].value for name, part in verdicts.parts.items()}
        sub_rewards = parts if isinstance(grader, MultiGrader) else {}
        return Outcome(score.value, score.error, score.note, sub_rewards, time.perf_counter() - started)

    async def judge(self, grader: Grader, samples: Sequence[tuple[Mapping[str, Any], str]]) -> Verdicts:
        """Scores texts that answer rows. Raises as `run` does."""
        async with self._place():
            return await run_slow(partial(self._judge, grader, samples))

    def _judge(self, grader: Grader, samples: Sequence[tuple[Mapping[str, Any], str]]) -> Verdicts:
        pool = build(grader, allows_user_code=self._allows_user_code)
        try:
            return pool.judge([Sample(item, text) for item, text in samples])
        except TemplateError as error:
            raise Unprocessable(str(error), code="invalid_grader", param="item") from error
        except NotStarted as error:
            raise Unavailable(f"The grader cannot be tried now: {error}.", code="busy") from error
        finally:
            pool.close()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        crowded = Unavailable("Too many graders are being tried at this moment; try again shortly.", code="busy")
        if self._num_waiting >= MOST_WAITING:
            raise crowded
        self._num_waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise crowded from None
        finally:
            self._num_waiting -= 1
        try:
            yield
        finally:
            self._places.release()


def build(grader: Grader, *, allows_user_code: bool) -> GraderPool:
    """The grader, ready to score. Raises Unprocessable for an unknown template variable and for foreign programs."""
    check(grader, allows_user_code=allows_user_code)
    try:
        return build_grader(grader, allows_user_code=allows_user_code)
    except UserCodeRefused as error:
        raise Unprocessable(str(error), code="user_code_unavailable", param="grader") from error


def check(grader: Grader, *, allows_user_code: bool, param: str = "grader") -> list[str]:
    """The row fields that a grader reads.

    Raises Unprocessable for an unknown template variable, and for a grader that runs foreign programs where the
    operator has not allowed it; `param` is the grader's place in the request.
    """
    try:
        check_user_code(grader, is_allowed=allows_user_code)
        check_judges(grader)
        return sorted(item_fields(grader))
    except UserCodeRefused as error:
        place = f"{param}.{error.param}" if error.param else param
        raise Unprocessable(str(error), code="user_code_disabled", param=place) from error
    except JudgesError as error:
        raise Unprocessable(str(error), code="unknown_judge", param=param) from error
    except TemplateError as error:
        raise Unprocessable(str(error), code="invalid_grader", param=param) from error
