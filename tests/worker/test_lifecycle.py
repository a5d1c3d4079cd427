"""Whatever tenants, workers, ghosts and the reaper do in whatever order, a job is where a plain model says it is.

Hypothesis draws the order; the moves go through the store and the recorder against a real Postgres. The model is a
dictionary of states that knows no code of theirs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from api.errors import Conflict, Fenced
from api.lifecycle import JobState
from api.store import jobs, leases
from api.store.database import Database
from api.store.events import move
from api.store.leases import RetryRule
from api.store.tables import Job, JobEvent, StepMetrics
from stapo_core.events import CheckpointSaved, Finished, Started, StepDone
from stapo_core.spool import Spool
from tests.worker.conftest import AddJob
from worker.recorder import Attempt, Recorder

RULE = RetryRule(max_attempts=3, backoff_s=0.0)
CRASH = {"code": "trainer_crashed", "message": "crash", "param": None, "stage": None, "retryable": True}
LAPSE = "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id"
HELD = {"starting", "running", "pausing", "exporting", "cancelling"}
ENDED = {"succeeded", "failed", "cancelled"}
CANCELS = dict.fromkeys(HELD, "cancelling") | dict.fromkeys(("queued", "recovering", "paused"), "cancelled")
PAUSES = {"starting": "pausing", "running": "pausing", "queued": "paused", "recovering": "paused"}


@dataclass
class Twin:
    """What a job should be."""

    id: str
    state: str = "queued"
    fence: int = 0
    tries: int = 0
    step: int = 0
    saved: int = 0
    ghosts: list[int] = field(default_factory=list)


class Lifecycle(RuleBasedStateMachine):
    """Rules are what may happen next; `database` and `add_job` are set by the test."""

    database: Database
    add_job: AddJob

    @initialize()
    def begin(self) -> None:
        with self.database.transaction() as session:
            session.execute(text("TRUNCATE jobs CASCADE"))
        self.folder = Path(tempfile.mkdtemp())
        self.twins: list[Twin] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def pick(self, data: Any, states: set[str]) -> Twin:
        return data.draw(st.sampled_from([twin for twin in self.twins if twin.state in states]))  # type: ignore[no-any-return]

    def has(self, *states: str) -> bool:
        return any(twin.state in states for twin in getattr(self, "twins", []))

    def write(self, twin: Twin, change: Callable[[Any, Job], None], *, fence: int | None = None) -> None:
        with self.database.transaction() as session:
            job = leases.hold(session, twin.id, twin.fence if fence is None else fence)
            change(session, job)

    def ship(self, twin: Twin, kind: Any, **fields: Any) -> None:
        run_dir = self.folder / twin.id
        run_dir.mkdir(exist_ok=True)
        spool = Spool(run_dir / "events.jsonl")
        spool.emit(kind, **fields)
        spool.close()
        Recorder(self.database, Attempt(twin.id, twin.fence, run_dir, self.folder, 2)).ship()

    # --- what may happen

    @precondition(lambda self: len(getattr(self, "twins", [0] * 9)) < 3)
    @rule()
    def create(self) -> None:
        self.twins.append(Twin(self.add_job(num_steps=100)))

    @rule()
    def claim(self) -> None:
        waiting = [twin for twin in self.twins if twin.state in ("queued", "recovering")]
        with self.database.transaction() as session:
            job = leases.claim_job(session, worker="w", lease_s=60.0)
        assert (job.id if job else None) == (waiting[0].id if waiting else None)
        if job is not None:
            twin = waiting[0]
            twin.ghosts.append(twin.fence)
            twin.state, twin.fence, twin.tries = "starting", twin.fence + 1, twin.tries + 1
            assert job.fence == twin.fence

    @precondition(lambda self: self.has("starting"))
    @rule(data=st.data())
    def start(self, data: Any) -> None:
        twin = self.pick(data, {"starting"})
        twin.step = data.draw(st.integers(0, twin.step))  # the newest checkpoint may be older than the record
        sizes = {"num_steps": 100, "num_train_rows": 1, "num_parameters": 1, "device": "cpu", "versions": {}}
        self.ship(twin, Started, resume_step=twin.step, **sizes)
        twin.state = "running"

    @precondition(lambda self: self.has("running", "pausing", "cancelling"))
    @rule(data=st.data())
    def train(self, data: Any) -> None:
        twin = self.pick(data, {"running", "pausing", "cancelling"})
        self.ship(twin, StepDone, step=twin.step + 1, metrics={"reward/mean": 1.0})
        twin.step += 1

    @precondition(lambda self: self.has("running", "pausing", "cancelling"))
    @rule(data=st.data())
    def save(self, data: Any) -> None:
        """Only a checkpoint beyond all before is progress; the step's own may be told again and again."""
        twin = self.pick(data, {"running", "pausing", "cancelling"})
        folder = self.folder / twin.id / "checkpoints" / f"step-{twin.step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        self.ship(twin, CheckpointSaved, step=twin.step, folder=f"checkpoints/{folder.name}", files=[])
        if twin.step > twin.saved:
            twin.saved, twin.tries = twin.step, 0

    @precondition(lambda self: self.has("running"))
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        twin = self.pick(data, {"running"})
        self.ship(twin, Finished, step=twin.step, reason="num_steps_reached")
        twin.state = "exporting"

    @precondition(lambda self: self.has(*HELD))
    @rule(data=st.data(), how=st.sampled_from(["done", "stopped", "halted", "crashed", "lost"]))
    def settle(self, data: Any, how: str) -> None:
        """As the runner does it; a lost worker is settled by the reaper."""
        twin = self.pick(data, HELD)
        if how == "lost":
            with self.database.transaction() as session:
                session.execute(text(LAPSE), {"id": twin.id})
            with self.database.transaction() as session:
                assert leases.expire_leases(session, RULE, lease_s=0.0) == [twin.id]
        elif twin.state in ("cancelling", "pausing"):
            ends = {"cancelling": JobState.CANCELLED, "pausing": JobState.PAUSED}
            self.write(twin, lambda session, job: move(session, job, ends[twin.state], "the trainer is gone"))
        elif how == "done" and twin.state == "exporting":
            self.write(twin, lambda session, job: move(session, job, JobState.SUCCEEDED, "done"))
        elif how == "stopped":
            self.write(twin, lambda session, job: leases.release_job(session, job, "stopped"))
        elif how == "halted":
            self.write(twin, lambda session, job: leases.pause_job(session, job, "storage_full", "full"))
        else:
            self.write(twin, lambda session, job: leases.fail_attempt(session, job, CRASH, RULE))
        self.expect_settled(twin, how)

    def expect_settled(self, twin: Twin, how: str) -> None:
        if twin.state in ("cancelling", "pausing"):
            twin.state = {"cancelling": "cancelled", "pausing": "paused"}[twin.state]
        elif how == "done" and twin.state == "exporting":
            twin.state = "succeeded"
        elif how in ("stopped", "halted"):
            twin.state = {"stopped": "recovering", "halted": "paused"}[how]
            twin.tries = max(0, twin.tries - 1)
        else:
            twin.state = "failed" if twin.tries >= RULE.max_attempts else "recovering"

    @precondition(lambda self: self.has(*CANCELS, *ENDED))
    @rule(data=st.data(), wish=st.sampled_from(["cancel", "pause", "resume"]))
    def wish(self, data: Any, wish: str) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        asked = {"cancel": jobs.request_cancel, "pause": jobs.request_pause, "resume": jobs.resume_job}[wish]
        known = {"cancel": CANCELS | {"cancelled": "cancelled"}, "resume": {"paused": "queued", "queued": "queued"}}
        target = known.get(wish, PAUSES | {"paused": "paused", "pausing": "pausing"}).get(twin.state)
        try:
            with self.database.transaction() as session:
                asked(session, "t", twin.id)
        except Conflict:
            assert target is None, f"{wish} was refused while {twin.state}"
        else:
            assert target is not None, f"{wish} was let through while {twin.state}"
            if wish == "resume" and twin.state == "paused":
                twin.tries = 0
            twin.state = target

    @precondition(lambda self: any(twin.fence for twin in getattr(self, "twins", [])))
    @rule(data=st.data())
    def haunt(self, data: Any) -> None:
        """A worker of an earlier attempt, or of one that is over, tries everything."""
        twin = data.draw(st.sampled_from([twin for twin in self.twins if twin.fence]))
        over = [] if twin.state in HELD else [twin.fence]
        fence = data.draw(st.sampled_from([*twin.ghosts, *over]))
        with pytest.raises(Fenced):
            self.write(twin, lambda session, job: move(session, job, JobState.FAILED, "boo"), fence=fence)
        with pytest.raises(Fenced):
            Recorder(self.database, Attempt(twin.id, fence, self.folder, self.folder, 2)).ship()
        with pytest.raises(Fenced), self.database.transaction() as session:
            leases.renew_lease(session, twin.id, fence, lease_s=1.0)
        with pytest.raises(Fenced), self.database.transaction() as session:
            leases.read_wish(session, twin.id, fence)

    # --- what must hold

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        for twin in getattr(self, "twins", []):
            with self.database.transaction() as session:
                job = session.get_one(Job, twin.id)
                steps = session.scalars(select(StepMetrics.step).where(StepMetrics.job_id == twin.id)).all()
                told = session.scalars(select(JobEvent).where(JobEvent.job_id == twin.id, JobEvent.kind == "state"))
                targets = [event.data["to"] for event in told.all()]
            assert (job.state, job.fence, job.step) == (twin.state, twin.fence, twin.step)
            assert job.attempts_without_progress == twin.tries
            assert sorted(steps) == list(range(1, twin.step + 1))
            assert targets.count("starting") == twin.fence
            assert (job.lease_until is not None) == (twin.state in HELD)


@pytest.fixture
def machine(database: Database, add_job: AddJob) -> type[Lifecycle]:
    return type("Machine", (Lifecycle,), {"database": database, "add_job": staticmethod(add_job)})


def test_a_job_is_always_where_the_model_says(machine: type[Lifecycle]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
