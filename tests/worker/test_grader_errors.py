"""A job whose grader cannot judge: paused with the evidence, and resumed by one call once it can."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.lifecycle import TERMINAL, JobState
from api.settings import Settings
from api.store import jobs
from api.store.database import Database
from api.store.events import list_events
from tests.stapo_core.tiny import make_model, make_tokenizer
from tests.worker.conftest import AddJob, ReadJob
from worker.runner import Runner

TRAIN: dict[str, Any] = {
    "batch": {"num_prompts": 2, "group_size": 2},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 4},
    "record_rollouts_every": 0,
}


@pytest.fixture
def write_rows(settings: Settings, tmp_path: Path) -> Callable[[str], None]:
    """Writes the training file with this answer in every row, beside a small model."""
    make_model(spread=1.0).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    settings.models_dir.mkdir(parents=True)
    (settings.models_dir / "tiny").symlink_to(tmp_path / "model")
    settings.files_dir.mkdir()

    def write(answer: str) -> None:
        rows = [{"prompt": f"{n}+1=", "answer": answer} for n in range(8)]
        (settings.files_dir / "file-1").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


@pytest.fixture
def wait_for(settings: Settings, read_job: ReadJob) -> Iterator[Callable[[str, JobState], Any]]:
    """Runs what waits, as a worker does, until a job has come to a state, or to its end."""
    runner, stopping = Runner(settings), threading.Event()

    def run() -> None:
        while not stopping.wait(0.05):
            runner.run_waiting_jobs()

    def wait(job_id: str, state: JobState) -> Any:
        deadline = time.monotonic() + 120.0
        while (job := read_job(job_id)).state not in {state, *TERMINAL}:
            assert time.monotonic() < deadline, f"still {job.state} at step {job.step}"
            time.sleep(0.05)
        return job

    thread = threading.Thread(target=run)
    thread.start()
    yield wait
    stopping.set()
    runner.is_draining.set()
    thread.join()


def test_a_job_whose_grader_cannot_judge_is_paused_with_the_evidence_and_resumed_by_one_call(
    write_rows: Callable[[str], None],
    wait_for: Callable[[str, JobState], Any],
    add_job: AddJob,
    database: Database,
) -> None:
    write_rows("no number")
    job_id = add_job(model="tiny", num_steps=3, **TRAIN)
    paused = wait_for(job_id, JobState.PAUSED)
    assert (paused.state, paused.stop_reason, paused.step) == ("paused", "grader_errors", 0)
    with database.transaction() as session:
        told = list_events(session, jobs.get_job(session, "t", job_id), after=None, limit=100, order="asc").rows
    (evidence,) = [event for event in told if event.kind == "grader_errors"]
    assert evidence.level == "error"
    assert evidence.data["errors"] == {"reference_not_a_number": 4}
    assert (evidence.data["step"], evidence.data["num_responses"]) == (1, 4)
    assert [example["kind"] for example in evidence.data["examples"]] == ["reference_not_a_number"] * 3
    assert "see to the grader, then resume" in told[-1].message

    write_rows("4")
    with database.transaction() as session:
        assert jobs.resume_job(session, "t", job_id).stop_reason is None
    assert wait_for(job_id, JobState.SUCCEEDED).state == "succeeded"


def test_a_job_whose_grader_gives_one_score_fails_once_and_says_so(
    write_rows: Callable[[str], None], wait_for: Callable[[str, JobState], Any], add_job: AddJob
) -> None:
    write_rows("123456789")
    job = wait_for(
        add_job(model="tiny", num_steps=9, grading={"refuse_one_score_after": 8}, **TRAIN), JobState.SUCCEEDED
    )
    assert (job.state, job.fence, job.step) == ("failed", 1, 1)
    error = job.error
    assert (error["code"], error["param"], error["retryable"]) == ("grader_gives_one_score", "grader", False)
    assert "all of the first 8 responses got the score 0" in error["message"]
