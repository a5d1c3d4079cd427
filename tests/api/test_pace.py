"""One process stays even: what is slow waits in a line of its own, few threads run, and old objects are set aside."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest
from anyio import to_thread

from api import grading, pace
from api.errors import Unavailable
from api.pace import NUM_QUICK, NUM_SLOW, is_full, run_slow, settle
from tests.api.conftest import Service

_Given = TypeVar("_Given")
RUN = {
    "grader": {"type": "string_check", "name": "same", "input": "a", "reference": "a", "operation": "eq"},
    "model_sample": "a",
}


class Crowd:
    """Counts who is in at a time; whoever comes in stays until told to go."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.may_go = threading.Event()
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.may_go.wait(60.0)
        with self._lock:
            self.inside -= 1


def run(work: Callable[..., Awaitable[_Given]], *args: Any) -> _Given:
    """What it gives, from an event loop of its own: the thread of the tests may be in one, a browser's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, work, *args).result()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def grading_crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    """Whoever tries a grader, once it has a place."""
    crowd, build = Crowd(), grading.build

    def build_in_time(*args: Any, **named: Any) -> Any:
        crowd.enter()
        return build(*args, **named)

    monkeypatch.setattr(grading, "build", build_in_time)
    return crowd


def test_requests_that_wait_for_a_grader_hold_up_no_request_of_another_kind(
    service: Service, grading_crowd: Crowd
) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    with ThreadPoolExecutor(2 * NUM_SLOW + 1) as callers:
        waiting = [
            callers.submit(service.client.post, "/v1/fine_tuning/alpha/graders/run", json=RUN)
            for _ in range(NUM_SLOW + NUM_QUICK)
        ]
        try:
            until(lambda: grading_crowd.inside == grading.AT_ONCE)
            time.sleep(1.0)  # the others have arrived
            for other in ("/v1/fine_tuning/jobs", f"{path}/metrics.csv"):  # a quick one, and a slow one
                assert callers.submit(service.client.get, other).result(20.0).status_code == 200
            assert not any(answer.done() for answer in waiting)
        finally:
            grading_crowd.may_go.set()
        assert {answer.result().status_code for answer in waiting} == {200}
    assert grading_crowd.most == grading.AT_ONCE


def test_who_comes_when_enough_wait_for_a_grader_is_told_so_at_once(
    service: Service, grading_crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "MOST_WAITING", 1)
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(service.client.post, "/v1/fine_tuning/alpha/graders/run", json=RUN) for _ in range(4)]
        try:
            until(lambda: any(answer.done() for answer in answers))
        finally:
            grading_crowd.may_go.set()
        told = sorted((answer.result() for answer in answers), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in told] == [200, 200, 200, 503]
    assert told[-1].json()["code"] == "busy"


def test_the_line_of_what_is_slow_has_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_SLOW_LINE", 3)
    crowd, refused = Crowd(), []

    async def ask() -> None:
        try:
            await run_slow(crowd.enter)
        except Unavailable as error:
            refused.append((error.code, is_full()))

    async def come() -> None:
        settle()
        async with anyio.create_task_group() as tasks:
            for _ in range(NUM_SLOW + 3 + 2):
                tasks.start_soon(ask)
                await anyio.sleep(0.02)  # it stands in the line
            with anyio.fail_after(60.0):
                while len(refused) < 2 or crowd.inside < NUM_SLOW:
                    await anyio.sleep(0.01)
            crowd.may_go.set()

    run(come)
    assert refused == [("overloaded", False)] * 2
    assert crowd.most == NUM_SLOW


def test_tables_that_look_for_their_columns_hold_up_no_request_of_another_kind(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, path = Crowd(), f"/v1/fine_tuning/jobs/{service.create_job()['id']}"

    def find_keys(*_: Any) -> list[str]:
        crowd.enter()
        return []

    monkeypatch.setattr("api.store.metrics.find_keys", find_keys)
    with ThreadPoolExecutor(NUM_QUICK + 1) as callers:
        tables = [callers.submit(service.client.get, f"{path}/metrics.csv") for _ in range(NUM_QUICK)]
        try:
            until(lambda: crowd.inside == NUM_QUICK)
            assert callers.submit(service.client.get, path).result(20.0).status_code == 200
        finally:
            crowd.may_go.set()
        assert {answer.result().status_code for answer in tables} == {200}


def test_few_requests_are_at_work_at_a_time_and_the_slow_ones_are_counted_apart() -> None:
    quick, slow = Crowd(), Crowd()

    async def come() -> None:
        settle()
        async with anyio.create_task_group() as tasks:
            for _ in range(3 * NUM_SLOW):
                tasks.start_soon(to_thread.run_sync, quick.enter)
                tasks.start_soon(run_slow, slow.enter)
            with anyio.fail_after(60.0):
                while (quick.inside, slow.inside) != (NUM_QUICK, NUM_SLOW):
                    await anyio.sleep(0.01)
            await anyio.sleep(0.2)  # whoever else could come in has come
            quick.may_go.set()
            slow.may_go.set()

    run(come)
    assert (quick.most, slow.most) == (NUM_QUICK, NUM_SLOW)


def test_a_line_is_full_when_as_many_wait_as_would_have_left_before_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "LONGEST_LINE", 3)
    crowd, seen = Crowd(), []

    async def come() -> None:
        settle()
        async with anyio.create_task_group() as tasks:
            for number in range(NUM_QUICK + 3):
                seen.append(is_full())
                tasks.start_soon(to_thread.run_sync, crowd.enter)
                with anyio.fail_after(60.0):
                    while crowd.inside < min(number + 1, NUM_QUICK):
                        await anyio.sleep(0.01)
                await anyio.sleep(0.01)
            seen.append(is_full())
            crowd.may_go.set()
        seen.append(is_full())

    run(come)
    assert seen == [False] * (NUM_QUICK + 3) + [True, False]


def test_who_comes_to_a_full_line_is_told_to_come_again_and_the_process_still_says_that_it_lives(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.problems.is_full", lambda: True)

    refused, alive = service.client.get("/v1/files"), service.client.get("/healthz")

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert "x-should-retry" not in refused.headers
    assert alive.status_code == 200


def test_what_slow_work_raises_is_raised_where_it_was_asked_for() -> None:
    def fail(why: str) -> None:
        raise ValueError(why)

    async def ask(work: Callable[[], None]) -> str:
        try:
            await run_slow(work)
        except ValueError as error:
            return str(error)
        return "nothing"

    assert run(ask, partial(fail, "no room")) == "no room"


def test_what_is_loaded_by_the_start_is_not_looked_through_for_garbage_again() -> None:
    program = """
import gc
import anyio
import api.main
from api.pace import settle

async def start():
    gc.collect()
    before = len(gc.get_objects())
    settle()
    print(before, len(gc.get_objects()), gc.get_threshold()[0])

anyio.run(start)
"""
    told = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True).stdout
    before, after, threshold = map(int, told.split())
    assert before > 100_000
    assert after < before / 20
    assert threshold == 10_000
