"""The live streams of a process outlive whatever goes wrong with one job, one row or one look at the database."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import func, update

from api.store import jobs, leases, metrics
from api.store.database import Session
from api.store.metrics import Kind
from api.store.tables import ApiKey, Job
from tests.api.conftest import Service
from tests.api.streams import headers_of, read_stream
from tests.api.writer import Writer

Told = list[tuple[str, int | None, Any]]


def steps_of(told: Told) -> list[int]:
    return [data["step"] for name, _, data in told if name == "metrics"]


class Readers:
    """Follows the metrics of jobs, each in a thread of its own."""

    def __init__(self, service: Service, server: str) -> None:
        self._service, self._server = service, server
        self._pool = ThreadPoolExecutor(4)

    def follow(self, job_id: str, *, what: str = "metrics", key: str | None = None) -> Future[Told]:
        url = f"{self._server}/v1/fine_tuning/jobs/{job_id}/{what}/stream"
        headers = {"Authorization": f"Bearer {key}"} if key else headers_of(self._service)
        future = self._pool.submit(read_stream, url, headers)
        time.sleep(0.5)  # so that it reads live, not from the record
        return future


@pytest.fixture
def readers(service: Service, server: str) -> Readers:
    return Readers(service, server)


@pytest.fixture
def two(service: Service) -> tuple[Writer, Writer]:
    return Writer(service.database, service.create_job()["id"]), Writer(service.database, service.create_job()["id"])


def test_a_damaged_row_is_left_out_and_everything_else_is_told(two: tuple[Writer, Writer], readers: Readers) -> None:
    damaged = two[0]
    told = [readers.follow(writer.job_id) for writer in two]
    damaged.step(1)
    with damaged.database.transaction() as session:
        job = leases.hold(session, damaged.job_id, damaged.fence)
        metrics.add_metrics(session, job, cast(Kind, "neither"), 2, {"a": 1.0}, datetime.now(UTC))
    time.sleep(0.3)
    for writer in two:
        writer.step(3)
        writer.finish()
    assert [steps_of(each.result()) for each in told] == [[1, 3], [3]]
    assert steps_of(readers.follow(damaged.job_id).result()) == [1, 3]


def test_a_job_in_an_unknown_state_does_not_silence_the_others(two: tuple[Writer, Writer], readers: Readers) -> None:
    strange, whole = two
    waiting, told = readers.follow(strange.job_id), readers.follow(whole.job_id)
    known = set_state(strange, "of a later release")
    time.sleep(0.3)
    whole.step(1)
    whole.finish()
    assert steps_of(told.result()) == [1]
    set_state(strange, known)
    strange.finish()
    assert waiting.result()[-1][0] == "end"


def set_state(writer: Writer, state: str) -> str:
    with writer.database.transaction() as session:
        job = session.get_one(Job, writer.job_id)
        before, job.state = job.state, state
    return before


def test_a_look_that_fails_unforeseen_is_followed_by_another(
    two: tuple[Writer, Writer], readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = two
    told = readers.follow(writer.job_id)
    find_jobs, failures = jobs.find_jobs, ["one"]

    def fail_once(session: Session, job_ids: list[str]) -> Any:
        if failures:
            raise RuntimeError(failures.pop())
        return find_jobs(session, job_ids)

    monkeypatch.setattr("api.streams.jobs.find_jobs", fail_once)
    writer.step(1)
    writer.finish()
    assert steps_of(told.result()) == [1]
    assert failures == []


@pytest.mark.parametrize("what", ["metrics", "events", "logs"])
@pytest.mark.parametrize("ending", ["revoked_at", "expires_at"])
def test_a_stream_ends_within_five_seconds_when_its_key_does(
    two: tuple[Writer, Writer], readers: Readers, service: Service, what: str, ending: str
) -> None:
    writer, _ = two
    made = service.client.post("/v1/api_keys", json={"name": "for a while"}).json()
    told, told_on = readers.follow(writer.job_id, what=what, key=made["key"]), readers.follow(writer.job_id)
    end_key(writer, made["id"], ending)
    assert "end" not in [name for name, _, _ in told.result(timeout=5.0)]
    writer.step(1)
    writer.finish()
    assert [name for name, _, _ in told_on.result()][-1] == "end"


def end_key(writer: Writer, key_id: str, column: str) -> None:
    with writer.database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values({column: func.now()}))
