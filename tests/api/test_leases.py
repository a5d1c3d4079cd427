from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from api.errors import Conflict, Fenced
from api.lifecycle import MOVES, TERMINAL, JobState, check_move
from api.store import jobs, leases
from api.store.database import Database, Outage
from api.store.events import move
from api.store.jobs import NewJob
from api.store.leases import RetryRule
from api.store.tables import File, Job

RULE = RetryRule(max_attempts=2, backoff_s=0.0)
CRASH = {"code": "trainer_crashed", "message": "it fell over", "param": None, "stage": "learning", "retryable": True}


@pytest.fixture(autouse=True)
def file(database: Database) -> None:
    with database.transaction() as session:
        session.add(File(id="file-1", tenant="t", filename="f", purpose="fine-tune", bytes=1, sha256="0"))


def add_job(database: Database, **changes: Any) -> str:
    short = {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}
    new = NewJob(
        model="m",
        training_file="file-1",
        validation_file=None,
        suffix=None,
        seed=0,
        method={"reinforcement": {"hyperparameters": short}},
        num_steps=10,
    )
    with database.transaction() as session:
        job = jobs.create_job(session, "t", new)
        for name, value in changes.items():
            setattr(job, name, value)
        return job.id


def claim(database: Database, *, worker: str = "w", lease_s: float = 60.0) -> Job | None:
    with database.transaction() as session:
        return leases.claim_job(session, worker=worker, lease_s=lease_s)


def expire(database: Database) -> list[str]:
    with database.transaction() as session:
        return leases.expire_leases(session, RULE, lease_s=0.0)


def state_of(database: Database, job_id: str) -> JobState:
    with database.transaction() as session:
        return JobState(jobs.get_job(session, "t", job_id).state)


def test_the_most_urgent_and_then_the_oldest_job_is_claimed_first(database: Database) -> None:
    first, second, urgent = add_job(database), add_job(database), add_job(database, priority=1)
    claimed = [claim(database) for _ in range(4)]
    assert [job.id if job else None for job in claimed] == [urgent, first, second, None]


def test_sixteen_claimers_never_share_a_job(database: Database) -> None:
    ids = {add_job(database) for _ in range(60)}

    def claim_all(worker: int) -> list[str]:
        taken = []
        while job := claim(database, worker=str(worker)):
            taken.append(job.id)
        return taken

    with ThreadPoolExecutor(16) as pool:
        taken = [job_id for share in pool.map(claim_all, range(16)) for job_id in share]
    assert len(taken) == len(set(taken))
    assert set(taken) == ids


def test_a_writer_whose_lease_lapsed_is_a_ghost(database: Database) -> None:
    job_id = add_job(database)
    ghost = claim(database, lease_s=-1.0)
    assert ghost is not None
    assert expire(database) == [job_id]
    heir = claim(database)
    assert heir is not None
    assert heir.fence > ghost.fence
    with pytest.raises(Fenced), database.transaction() as session:
        leases.hold(session, job_id, ghost.fence)
    with pytest.raises(Fenced), database.transaction() as session:
        leases.renew_lease(session, job_id, ghost.fence, lease_s=60.0)
    with database.transaction() as session:
        assert leases.hold(session, job_id, heir.fence).worker == "w"


def test_a_renewed_lease_does_not_lapse(database: Database) -> None:
    job_id = add_job(database)
    job = claim(database, lease_s=-1.0)
    assert job is not None
    with database.transaction() as session:
        leases.renew_lease(session, job_id, job.fence, lease_s=60.0)
    assert expire(database) == []


def test_no_lease_lapses_right_after_the_database_came_back(database: Database) -> None:
    add_job(database)
    claim(database, lease_s=-1.0)
    with database.transaction() as session:
        assert leases.expire_leases(session, RULE, lease_s=1e6) == []


@pytest.mark.parametrize(
    ("wish", "ends"), [(JobState.CANCELLING, JobState.CANCELLED), (JobState.PAUSING, JobState.PAUSED)]
)
def test_what_the_tenant_asked_for_holds_when_the_worker_is_lost(
    database: Database, wish: JobState, ends: JobState
) -> None:
    job_id = add_job(database)
    claim(database, lease_s=-1.0)
    ask = jobs.request_cancel if wish is JobState.CANCELLING else jobs.request_pause
    with database.transaction() as session:
        assert ask(session, "t", job_id).state == wish
    expire(database)
    assert state_of(database, job_id) is ends


def test_a_job_that_makes_no_progress_fails_after_its_attempts(database: Database) -> None:
    job_id = add_job(database)
    for expected in (JobState.RECOVERING, JobState.FAILED):
        job = claim(database)
        assert job is not None
        with database.transaction() as session:
            leases.fail_attempt(session, leases.hold(session, job_id, job.fence), CRASH, RULE)
        assert state_of(database, job_id) is expected
    with database.transaction() as session:
        assert jobs.get_job(session, "t", job_id).error == CRASH


def test_a_failed_attempt_waits_longer_each_time(database: Database) -> None:
    add_job(database)
    waits = []
    for _ in range(3):
        job = claim(database)
        assert job is not None
        with database.transaction() as session:
            held = leases.hold(session, job.id, job.fence)
            leases.fail_attempt(session, held, CRASH, RetryRule(max_attempts=9, backoff_s=10.0))
            now = session.scalars(text("SELECT now()")).one()
            waits.append(round((held.not_before - now).total_seconds()))
            held.not_before = now
    assert waits == [10, 20, 40]


def test_an_error_that_cannot_go_away_is_not_tried_again(database: Database) -> None:
    job_id = add_job(database)
    job = claim(database)
    assert job is not None
    with database.transaction() as session:
        leases.fail_attempt(session, leases.hold(session, job_id, job.fence), CRASH | {"retryable": False}, RULE)
    assert state_of(database, job_id) is JobState.FAILED


def test_a_released_job_loses_no_attempt(database: Database) -> None:
    job_id = add_job(database)
    for _ in range(5):
        job = claim(database)
        assert job is not None
        with database.transaction() as session:
            leases.release_job(session, leases.hold(session, job_id, job.fence), "drained")
    assert state_of(database, job_id) is JobState.RECOVERING


def test_only_the_listed_moves_are_possible() -> None:
    for current in JobState:
        for target in JobState:
            if target in MOVES[current]:
                check_move(current, target)
            else:
                with pytest.raises(Conflict, match=current.value):
                    check_move(current, target)
    assert all(not MOVES[state] for state in TERMINAL)


def test_a_move_that_is_refused_changes_nothing(database: Database) -> None:
    job_id = add_job(database)
    with pytest.raises(Conflict), database.transaction() as session:
        move(session, jobs.lock_job(session, "t", job_id), JobState.SUCCEEDED, "no")
    assert state_of(database, job_id) is JobState.QUEUED


def test_a_worker_that_is_suspended_in_mid_transaction_loses_its_job_all_the_same(
    database: Database, fresh_database: str
) -> None:
    job_id = add_job(database)
    suspended = Database(fresh_database, silent_s=0.3)
    assert claim(database, lease_s=0.0) is not None

    def write() -> None:
        with suspended.transaction() as session:
            leases.hold(session, job_id, 1).step = 5
            session.flush()
            assert expire(database) == []  # the row is locked, and nobody waits for it
            deadline = time.monotonic() + 30.0
            while expire(database) != [job_id]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            session.execute(text("SELECT 1"))

    with pytest.raises(Outage):
        write()
    with pytest.raises(Fenced), suspended.transaction() as session:
        leases.hold(session, job_id, 1)
    suspended.close()
    assert state_of(database, job_id) == JobState.RECOVERING


def test_what_only_refers_to_a_job_does_not_wait_for_the_worker_that_writes_to_it(database: Database) -> None:
    job_id = add_job(database)
    job = claim(database)
    assert job is not None
    with database.transaction() as session:
        leases.hold(session, job_id, job.fence)
        with database.transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            other.execute(text("SELECT 1 FROM jobs FOR KEY SHARE"))  # as the check of a foreign key does


def test_a_job_that_is_cancelled_between_two_attempts_is_told_so(database: Database) -> None:
    job_id = add_job(database)
    job = claim(database)
    assert job is not None
    with database.transaction() as session:
        leases.release_job(session, leases.hold(session, job_id, job.fence), "drained")
    with database.transaction() as session:
        jobs.request_cancel(session, "t", job_id)
        told = session.scalars(text("SELECT message FROM job_events ORDER BY seq DESC LIMIT 1")).one()
    assert told == "Cancelled between two attempts."


def test_a_worker_that_has_been_silent_for_a_day_is_forgotten(database: Database) -> None:
    with database.transaction() as session:
        leases.beat(session, "old", slots=1)
        session.execute(text("UPDATE worker_beats SET seen_at = now() - interval '25 hours'"))
        leases.beat(session, "new", slots=1)
        assert session.scalars(text("SELECT name FROM worker_beats")).all() == ["new"]
