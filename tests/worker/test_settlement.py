"""How an attempt ends, by what its trainer left with and what was asked of it: with the trainer of the chaos tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.lifecycle import TERMINAL, JobState
from api.settings import Settings
from stapo_core.failpoints import VARIABLE
from tests.chaos import trainer as chain
from tests.worker.conftest import AddJob, ReadJob
from tests.worker.test_runner import Work
from worker import process

TRAIN: dict[str, Any] = {"batch": {"num_prompts": 2, "group_size": 2}, "checkpoint": {"every_steps": 3, "keep": 2}}


@pytest.fixture(autouse=True)
def chain_trainer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done by the trainer whose steps follow from each other: it starts in a moment."""
    monkeypatch.setattr(process, "TRAINER", (sys.executable, chain.__file__))
    (settings.models_dir / "tiny").mkdir(parents=True)
    settings.files_dir.mkdir()
    (settings.files_dir / "file-1").write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)


@pytest.fixture
def failpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def work(settings: Settings, read_job: ReadJob, failpoints: Path) -> Iterator[Work]:
    work = Work(settings, read_job)
    yield work
    work.stop()


def test_a_step_that_always_crashes_fails_the_job_although_checkpoints_came_before_it(
    work: Work, add_job: AddJob, failpoints: Path
) -> None:
    job_id = add_job(model="tiny", num_steps=1000, **TRAIN)

    def has_ended(job: Any) -> bool:
        if job.step >= 3:
            (failpoints / "updated").write_text("kill")
        return JobState(job.state) in TERMINAL

    job = work.wait_for(job_id, has_ended)
    assert (job.state, job.attempts_without_progress) == ("failed", 3)
    assert "was ended by signal 9" in job.error["message"]
