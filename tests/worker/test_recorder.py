from __future__ import annotations

import errno
import hashlib
import itertools
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.errors import Fenced
from api.settings import Settings
from api.store import artifacts, jobs, leases, metrics, recordings, rollouts
from api.store.database import Database, Outage, Session
from api.store.events import list_events
from api.store.metrics import MetricsFilter
from api.store.rollouts import RolloutFilter
from stapo_core import events, folders
from stapo_core.spool import Spool, is_storage_full
from tests.worker.conftest import AddJob, ReadJob
from worker.recorder import CHUNK, Attempt, Recorder

T = 1_790_000_000.0
CRASH = {"code": "trainer_crashed", "message": "crash", "param": None, "stage": None, "retryable": True}


class Run:
    """One claimed job, and a trainer's spool written by hand."""

    def __init__(self, database: Database, settings: Settings, add_job: AddJob) -> None:
        self.database, self.settings = database, settings
        self.job_id = add_job()
        self.claim()

    def claim(self) -> None:
        with self.database.transaction() as session:
            job = leases.claim_job(session, worker="w", lease_s=60.0)
            assert job is not None
            run_dir = self.settings.runs_dir / job.id
            run_dir.mkdir(parents=True, exist_ok=True)
            self.attempt = Attempt(job.id, job.fence, run_dir, self.settings.artifacts_dir, keep_checkpoints=2)
        self.recorder = Recorder(self.database, self.attempt)

    @property
    def spool(self) -> Path:
        return self.attempt.run_dir / "events.jsonl"

    def say(self, *said: events.Event) -> None:
        with self.spool.open("a") as spool:
            spool.writelines(event.model_dump_json() + "\n" for event in said)

    def save(self, step: int, *, final: bool = False, best: bool = False) -> None:
        folder = self.attempt.run_dir / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        content = f"weights {step}".encode()
        (folder / "model.safetensors").write_bytes(content)
        file = events.CheckpointFile(
            path="model.safetensors", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        relative = str(folder.relative_to(self.attempt.run_dir))
        self.say(events.CheckpointSaved(time=T, step=step, folder=relative, files=[file], final=final, best=best))

    def metrics(self) -> list[tuple[str, int, int]]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            rows = metrics.read_points(session, job, MetricsFilter(), max_points=None).data
            return [(row.kind, row.step, row.fence) for row in rows]

    def told(self) -> list[tuple[str, str]]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            return [
                (event.kind, event.message)
                for event in list_events(session, job, after=None, limit=100, order="asc").rows
            ]

    def checkpoint_steps(self) -> list[int]:
        with self.database.transaction() as session:
            job = jobs.get_job(session, "t", self.job_id)
            return [row.step for row in artifacts.list_checkpoints(session, job, after=None, limit=9, order="asc").rows]


@pytest.fixture
def run(database: Database, settings: Settings, add_job: AddJob) -> Run:
    return Run(database, settings, add_job)


def started(resume_step: int = 0) -> events.Started:
    return events.Started(
        time=T,
        resume_step=resume_step,
        num_steps=10,
        num_train_rows=100,
        num_parameters=1000,
        device="cpu",
        versions={},
    )


def step(number: int, **values: Any) -> events.StepDone:
    return events.StepDone(time=T, step=number, metrics={"tokens/trained": 100.0, **values})


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


def test_a_checkpoint_row_stands_for_a_folder_that_is_whole(run: Run, settings: Settings) -> None:
    run.say(started(), step(1))
    run.save(1)
    run.recorder.ship()
    assert run.checkpoint_steps() == [1]
    published = artifacts.folder_path(settings.artifacts_dir, run.job_id, 1) / "model.safetensors"
    assert published.read_bytes() == b"weights 1"


def test_only_the_newest_checkpoints_are_kept(run: Run, settings: Settings) -> None:
    run.say(started())
    for number in (1, 2, 3):
        run.save(number, final=number == 3)
    run.recorder.ship()
    assert run.checkpoint_steps() == [2, 3]
    folders = {path.name for path in (settings.artifacts_dir / run.job_id).iterdir()}
    assert folders == {"step-000002", "step-000003"}


def test_the_best_checkpoint_is_kept_however_old_and_gives_way_to_a_better_one(run: Run) -> None:
    run.say(started())
    for number in (1, 2, 3, 4):
        run.save(number, best=number in (1, 2))
    run.recorder.ship()
    assert run.checkpoint_steps() == [2, 3, 4]
    for number in (5, 6):
        run.save(number, best=number == 5)
    run.recorder.ship()
    assert run.checkpoint_steps() == [5, 6]
    assert ("checkpoint", "Checkpoint of step 5, the best so far: 1 files, 9 bytes.") in run.told()


def test_a_checkpoint_that_was_replaced_before_it_was_shipped_gets_no_row(run: Run) -> None:
    run.say(started())
    run.save(1)
    folder = run.attempt.run_dir / "checkpoints" / "step-000001"
    (folder / "model.safetensors").unlink()
    folder.rmdir()
    run.recorder.ship()
    assert run.checkpoint_steps() == []


def test_a_checkpoint_that_is_half_gone_gets_no_row_either(run: Run, settings: Settings) -> None:
    run.say(started())
    run.save(1)
    folder = run.attempt.run_dir / "checkpoints" / "step-000001"
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text("{}")
    run.recorder.ship()
    assert run.checkpoint_steps() == []
    assert list((settings.artifacts_dir / run.job_id).iterdir()) == []
    assert any("replaced by newer ones" in message for _, message in run.told())


def test_a_store_without_room_is_told_as_that_and_keeps_nothing_half_written(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.say(started(), step(1))
    run.save(1)
    monkeypatch.setattr(os, "link", refuse_to_link)  # as between two file systems
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refusal:
            run.recorder.ship()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_storage_full(refusal.value)
    assert list((settings.artifacts_dir / run.job_id).iterdir()) == []
    run.recorder.ship()
    assert run.checkpoint_steps() == [1]
    published = artifacts.folder_path(settings.artifacts_dir, run.job_id, 1) / "model.safetensors"
    assert published.read_bytes() == b"weights 1"


def refuse_to_link(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


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


def test_a_recording_that_cannot_be_read_costs_its_rows_and_not_the_run(run: Run) -> None:
    (run.attempt.run_dir / "rollouts").mkdir()
    (run.attempt.run_dir / "rollouts" / "step-000001.parquet").write_bytes(b"torn")
    run.say(started(), events.RolloutsRecorded(time=T, step=1, file="rollouts/step-000001.parquet"), step(1))
    run.say(events.RolloutsRecorded(time=T, step=2, file="rollouts/step-000002.parquet"), step(2))
    run.recorder.ship()
    assert run.metrics() == [("train", 1, 1), ("train", 2, 1)]
    warnings = [message for kind, message in run.told() if kind == "warning"]
    assert len(warnings) == 2
    assert all("cannot be read" in message for message in warnings)


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


@pytest.mark.parametrize("has_links", [True, False])
def test_a_ghost_that_publishes_is_stopped_before_anything_appears(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    run.say(started())
    run.save(1)
    write_recording(run, 1)
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_to_link)
        monkeypatch.setattr(folders, "PIECE", 2000)
    calls: list[int] = []

    def fence_at(last: int) -> Callable[[], None]:
        def keep_alive() -> None:
            calls.append(last)
            if calls.count(last) == last:
                raise Fenced("another attempt was let in")

        return keep_alive

    for last in itertools.count(1):
        run.recorder.keep_alive = fence_at(last)
        try:
            run.recorder.ship()
        except Fenced:
            published = settings.artifacts_dir / run.job_id
            assert run.checkpoint_steps() == []
            assert not list(published.glob(".tmp-*")) if published.exists() else True
        else:
            break
    # before each of the two, after each file or piece of it, and before it appears
    assert last - 1 == 6 if has_links else last - 1 > 6
    assert run.checkpoint_steps() == [1]


def write_recording(run: Run, step: int) -> int:
    """A step of one response, as a trainer records it; gives the bytes of its file."""
    path = run.attempt.run_dir / "rollouts" / f"step-{step:06d}.parquet"
    path.parent.mkdir(exist_ok=True)
    columns: dict[str, list[Any]] = {
        **{name: [0] for name in ("position", "prompt_index", "sample_index")},
        **{name: [0.5] for name in ("reward", "advantage", "p", "entropy")},
        **{name: [False] for name in ("masked", "clipped", "positive_advantage", "low_p")},
        **{name: ["x"] for name in ("prompt", "response", "finish")},
    }
    pq.write_table(pa.table(columns), path)
    run.say(events.RolloutsRecorded(time=T, step=step, file=f"rollouts/{path.name}"))
    return path.stat().st_size


def test_the_oldest_recorded_steps_make_room_unless_they_are_pinned(run: Run) -> None:
    run.say(started())
    size = write_recording(run, 1)
    run.recorder.ship()
    with run.database.transaction() as session:
        job = jobs.get_job(session, "t", run.job_id)
        (first,) = rollouts.list_rollouts(session, job, RolloutFilter(), sort="step", after=None, limit=9).rows
        rollouts.pin_rollout(session, job, first.id, pinned=True)
    few = replace(run.attempt, max_rollout_bytes=3 * size)
    recorder = Recorder(run.database, few)
    for number in (2, 3, 4, 5):
        write_recording(run, number)
        recorder.ship()
    with run.database.transaction() as session:
        job = jobs.get_job(session, "t", run.job_id)
        page = rollouts.list_rollouts(session, job, RolloutFilter(), sort="step", after=None, limit=9)
        assert [row.step for row in page.rows] == [1, 4, 5]
    for folder in (run.attempt.run_dir, run.attempt.artifacts_dir / run.job_id):
        names = sorted(path.name for path in (folder / "rollouts").iterdir())
        assert names == [f"step-{number:06d}.parquet" for number in (1, 4, 5)]
    dropped = [message for kind, message in run.told() if kind == "rollouts_dropped"]
    limit = f"a job keeps {3 * size:,} bytes of them."
    assert dropped == [f"The recorded responses of step {step} were dropped: {limit}" for step in (2, 3)]


def test_the_newest_recorded_step_stays_however_large(run: Run) -> None:
    run.say(started())
    write_recording(run, 1)
    write_recording(run, 2)
    Recorder(run.database, replace(run.attempt, max_rollout_bytes=0)).ship()
    assert sorted(recordings.recording_sizes(run.attempt.artifacts_dir, run.job_id)) == [2]


def test_a_new_attempt_takes_back_the_checkpoints_above_the_one_it_resumes_from(run: Run) -> None:
    run.say(started())
    run.save(1)
    run.save(2)
    run.recorder.ship()
    assert run.checkpoint_steps() == [1, 2]
    run.say(started(resume_step=1))
    run.recorder.ship()
    assert run.checkpoint_steps() == [1]
