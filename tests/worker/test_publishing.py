from __future__ import annotations

import errno
import itertools
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.errors import Fenced
from api.settings import Settings
from api.store import artifacts, jobs, recordings, rollouts
from api.store.rollouts import RolloutFilter
from stapo_core import events, folders
from stapo_core.spool import is_storage_full
from tests.worker.spools import Run, T, started, step
from worker.recorder import Recorder


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


def test_what_killed_workers_left_in_the_store_goes_when_the_next_attempt_begins(run: Run, settings: Settings) -> None:
    run.say(started())
    for number in (1, 2):
        run.save(number)
    run.recorder.ship()
    store = settings.artifacts_dir / run.job_id
    for stray in ("step-000007", ".tmp-step-000008-1", "rollouts"):
        (store / stray).mkdir()
    (store / ".tmp-step-000008-1" / "model.safetensors").write_bytes(b"half")
    (store / "rollouts" / ".tmp-step-000003.parquet-1").write_bytes(b"half")
    (store / "rollouts" / "step-000001.parquet").write_bytes(b"whole")
    run.say(started(1))
    run.recorder.ship()
    assert {path.name for path in store.rglob("*") if path.suffix != ".safetensors"} == {
        "step-000001",
        "rollouts",
        "step-000001.parquet",
    }
    assert run.checkpoint_steps() == [1]


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
