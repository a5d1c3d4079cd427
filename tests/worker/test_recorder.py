from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.errors import Fenced
from api.store import leases
from api.store.database import Outage, Session
from stapo_core import events
from stapo_core.spool import Spool
from tests.worker.conftest import ReadJob
from tests.worker.spools import Run, T, started, step
from worker.recorder import CHUNK, Recorder

CRASH = {"code": "trainer_crashed", "message": "crash", "param": None, "stage": None, "retryable": True}


def test_a_job_runs_only_once_the_trainer_has_reported(run: Run, read_job: ReadJob) -> None:
    run.say(events.StageChanged(time=T, stage="loading"))
    run.recorder.ship()
    assert (read_job(run.job_id).state, read_job(run.job_id).stage) == ("starting", "loading")
    run.say(started())
    run.recorder.ship()
    assert read_job(run.job_id).state == "running"


def test_steps_become_rows_and_progress(run: Run, read_job: ReadJob) -> None:
    run.say(started(), *(step(number) for number in range(1, 4)))
    run.recorder.ship()
    job = read_job(run.job_id)
    assert run.metrics() == [("train", 1, 1), ("train", 2, 1), ("train", 3, 1)]
    assert (job.step, job.trained_tokens) == (3, 300)


def test_only_a_checkpoint_counts_as_progress(run: Run, read_job: ReadJob) -> None:
    run.say(started(), step(1))
    run.recorder.ship()
    assert read_job(run.job_id).attempts_without_progress == 1
    run.save(1)
    run.recorder.ship()
    assert read_job(run.job_id).attempts_without_progress == 0


def test_a_checkpoint_that_is_told_again_is_no_progress(run: Run, read_job: ReadJob) -> None:
    run.say(started(), step(1))
    run.save(1)
    run.recorder.ship()
    with run.database.transaction() as session:
        leases.fail_attempt(session, leases.hold(session, run.job_id, 1), CRASH, leases.RetryRule(3, 0.0))
    run.claim()
    again = run.spool.read_text().splitlines()[-1]
    run.say(
        started(resume_step=1), events.parse_event(again), events.parse_event(again).model_copy(update={"best": True})
    )
    run.recorder.ship()
    assert read_job(run.job_id).attempts_without_progress == 1
    run.say(step(2))
    run.save(2)
    run.recorder.ship()
    assert read_job(run.job_id).attempts_without_progress == 0


def test_shipping_again_adds_nothing(run: Run) -> None:
    run.say(started(), step(1))
    run.recorder.ship()
    before = run.told(), run.metrics()
    run.recorder.ship()
    Recorder(run.database, run.attempt).ship()
    assert (run.told(), run.metrics()) == before


def test_a_line_that_is_still_being_written_waits(run: Run) -> None:
    run.say(started())
    whole = step(1).model_dump_json()
    run.spool.open("a").write(whole[:20])
    run.recorder.ship()
    assert run.metrics() == []
    run.spool.open("a").write(whole[20:] + "\n")
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 1)]


def test_a_new_attempt_takes_back_what_lies_above_its_checkpoint(run: Run, read_job: ReadJob) -> None:
    run.say(started(), step(1), step(2), step(3))
    run.recorder.ship()
    run.say(step(4))  # said, and not yet shipped when the worker died
    with run.database.transaction() as session:
        leases.release_job(session, leases.hold(session, run.job_id, run.attempt.fence), "worker lost")
    run.claim()
    run.say(started(resume_step=2), step(3), step(4))
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 1), ("train", 2, 1), ("train", 3, 2), ("train", 4, 2)]
    assert read_job(run.job_id).trained_tokens == 400
    assert any("2 step(s)" in message for _, message in run.told())


def test_what_is_shipped_is_on_the_disk_before_its_rows_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[Any]]] = []
    sync = os.fdatasync

    def watch(descriptor: int) -> None:
        sync(descriptor)
        synced.append((os.fstat(descriptor).st_size, run.metrics()))

    monkeypatch.setattr(os, "fdatasync", watch)
    run.say(started(), step(1))
    run.recorder.ship()
    assert synced == [(run.spool.stat().st_size, [])]


@pytest.mark.parametrize("torn", ["", '{"type": "st'])
def test_an_attempt_goes_back_to_where_the_disk_has_forgotten_what_was_shipped(run: Run, torn: str) -> None:
    run.say(started())
    kept = run.spool.read_text()
    run.say(step(1), step(2))
    run.recorder.ship()
    with run.database.transaction() as session:
        leases.release_job(session, leases.hold(session, run.job_id, 1), "the machine crashed")
    run.spool.write_text(kept + torn)
    run.claim()
    run.recorder.rewind()
    Spool(run.spool).close()  # as the trainer does
    run.say(started(), step(1))
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 2)]
    assert [kind for kind, _ in run.told() if kind == "warning"] == []


def test_a_rewind_moves_nothing_where_all_is_there(run: Run, read_job: ReadJob) -> None:
    run.say(started(), step(1))
    run.recorder.ship()
    before = read_job(run.job_id).spool_offset
    run.say(step(2))
    run.recorder.rewind()
    assert read_job(run.job_id).spool_offset == before > 0


def test_a_ghost_writes_nothing(run: Run) -> None:
    run.say(started(), step(1))
    with run.database.transaction() as session:
        leases.release_job(session, leases.hold(session, run.job_id, run.attempt.fence), "taken away")
    with pytest.raises(Fenced):
        run.recorder.ship()
    assert run.metrics() == []


def test_the_trainers_own_words_are_kept_for_the_settlement(run: Run) -> None:
    run.say(started())
    run.say(events.Failed(time=T, stage="sampling", code="oom", message="out of memory", retryable=True))
    run.recorder.ship()
    assert run.recorder.failure is not None
    assert ("failure", "The trainer gave up: out of memory") in run.told()


def test_a_line_that_is_no_event_is_told_and_passed_over(run: Run) -> None:
    run.say(started())
    run.spool.open("a").write("not json\n")
    run.say(step(1))
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 1)]
    assert any(kind == "warning" and "not json" in message for kind, message in run.told())


def test_a_nul_that_the_trainer_says_is_shown_as_what_it_is(run: Run) -> None:
    run.say(started(), events.Warned(time=T, message="a\0b"))
    run.recorder.ship()
    assert ("warning", "a\ufffdb") in run.told()


def test_a_batch_has_an_end_however_much_is_said(run: Run) -> None:
    run.say(started(), *(step(number) for number in range(1, 1200)))
    assert run.recorder.ship_batch()
    assert len(run.metrics()) == 499
    run.recorder.ship()
    assert len(run.metrics()) == 1199


def test_last_words_are_remembered_when_the_answer_to_their_commit_is_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.say(started(), events.Failed(time=T, stage="sampling", code="oom", message="out of memory", retryable=True))
    begin = run.database.transaction

    @contextmanager
    def lose_the_answer() -> Iterator[Session]:
        with begin() as session:
            yield session
        raise Outage("the answer was lost")

    transactions = iter([begin, lose_the_answer])
    with monkeypatch.context() as patched:
        patched.setattr(run.database, "transaction", lambda: next(transactions)())
        with pytest.raises(Outage):
            run.recorder.ship()
    run.recorder.ship()
    assert run.recorder.failure is not None
    assert [message for kind, message in run.told() if kind == "failure"] == ["The trainer gave up: out of memory"]


def test_a_line_of_any_length_is_read_and_its_message_cut(run: Run) -> None:
    run.say(started())
    line = events.Warned(time=T, message="long").model_dump_json().replace("long", "x" * 3 * CHUNK)
    run.spool.open("a").write(line + "\n")
    run.say(step(1))
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 1)]
    assert [message for kind, message in run.told() if kind == "warning"] == ["x" * events.MAX_TEXT]


@pytest.mark.parametrize("line", [step(2**70), step(9).model_copy(update={"time": 1e300}), "a\rb"])
def test_a_line_that_cannot_be_stored_is_told_and_passed_over(run: Run, line: events.StepDone | str) -> None:
    run.say(started(), step(1))
    run.spool.open("a").write(f"{line if isinstance(line, str) else line.model_dump_json()}\n")
    run.say(step(2))
    run.recorder.ship()
    run.say(step(3))
    run.recorder.ship()
    assert run.metrics() == [("train", number, 1) for number in (1, 2, 3)]
    assert sum("a line that is no event" in message for _, message in run.told()) == 1
