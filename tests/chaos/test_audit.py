"""The auditor notices a write by a worker or an attempt that does not hold the job, and nothing that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from api.lifecycle import JobState
from api.store import leases
from api.store.database import Database, Session
from api.store.events import add_event, move
from api.store.leases import RetryRule
from api.store.tables import Checkpoint, Job
from tests.chaos import audit
from tests.chaos.claims import add_jobs

RULE = RetryRule(max_attempts=3, backoff_s=0.0)


@pytest.fixture
def database(fresh_database: str) -> Iterator[Database]:
    database = Database(fresh_database)
    add_jobs(database, 1)
    audit.install(database)
    yield database
    database.close()


def write(database: Database, worker: str, attempt: int | None, change: Callable[[Session, Job], object]) -> list[str]:
    """What the auditor has to say when a worker has done this in one transaction, for an attempt or for none."""
    with database.transaction() as session:
        for name, value in (("worker", worker), ("fence", "" if attempt is None else attempt)):
            session.execute(text(f"SELECT set_config('chaos.{name}', '{value}', true)"))
        change(session, session.query(Job).one())
    return [ghost.partition(": ")[2] for ghost in audit.ghost_writes(database)]


def claim(database: Database, worker: str, *, lease_s: float = 60.0) -> list[str]:
    return write(database, worker, None, lambda session, _: leases.claim_job(session, worker=worker, lease_s=lease_s))


def tell(session: Session, job: Job) -> None:
    add_event(session, job, "a word", kind="warning")


def save(session: Session, job: Job) -> None:
    session.add(Checkpoint(id="c", job_id=job.id, step=1, final=False, files=[], metrics={}))


def end(session: Session, job: Job) -> None:
    move(session, job, JobState.FAILED, "failed")


def test_a_claim_its_writes_and_its_end_are_right(database: Database) -> None:
    assert claim(database, "a") == []
    assert write(database, "a", 1, tell) == write(database, "a", 1, save) == write(database, "a", 1, end) == []


def test_a_job_may_be_taken_from_a_worker_that_fell_silent_and_from_no_other(database: Database) -> None:
    claim(database, "a", lease_s=-1.0)
    reap = lambda session, _: leases.expire_leases(session, RULE, lease_s=0.0)  # noqa: E731
    assert write(database, "b", None, reap) == []
    assert claim(database, "b") == []
    found = write(database, "a", None, end)
    assert "starting to failed written by a, held by b as attempt 2" in found


@pytest.mark.parametrize(("writer", "attempt"), [("a", 1), ("a", 3), ("b", 1), ("b", None)])
def test_another_worker_and_another_attempt_of_the_same_are_noticed(
    writer: str, attempt: int | None, database: Database
) -> None:
    claim(database, "a", lease_s=-1.0)
    write(database, "a", None, lambda session, _: leases.expire_leases(session, RULE, lease_s=0.0))
    claim(database, "a")
    by = f"written by {writer}" + ("" if attempt is None else f" as attempt {attempt}") + ", held by a as attempt 2"
    assert write(database, writer, attempt, save) == [f"insert of checkpoints {by}"]
    assert f"insert of job_events {by}" in write(database, writer, attempt, tell)
    removed = write(database, writer, attempt, lambda session, _: session.execute(text("DELETE FROM checkpoints")))
    assert removed[-1] == f"delete of checkpoints {by}"


def test_the_api_and_the_harness_write_as_they_please(database: Database) -> None:
    claim(database, "a")
    assert write(database, "", None, tell) == []
