"""The official client of the dialect, unchanged, against the running platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai as dialect
import pytest
from openai import OpenAI

from client.http import Client
from client.running import RunningPlatform
from tests.end_to_end.conftest import CreateJob, wait_for


def test_it_uploads_reads_and_deletes_a_file(openai: OpenAI, problems: Path) -> None:
    with problems.open("rb") as file:
        uploaded = openai.files.create(file=file, purpose="fine-tune")
    assert openai.files.retrieve(uploaded.id) == uploaded
    assert openai.files.content(uploaded.id).read() == problems.read_bytes()
    assert uploaded.id in [file.id for file in openai.files.list()]
    assert openai.files.delete(uploaded.id).deleted
    with pytest.raises(dialect.NotFoundError, match=uploaded.id):
        openai.files.retrieve(uploaded.id)


def test_it_trains_watches_and_downloads(
    openai: OpenAI, create_job: CreateJob, platform: RunningPlatform, tmp_path: Path
) -> None:
    job = create_job(num_steps=6)
    assert job.object == "fine_tuning.job"
    assert job.method is not None
    assert job.method.type == "reinforcement"
    done = wait_for(openai, job.id, lambda job: job.status == "succeeded")
    assert done.fine_tuned_model is not None
    assert done.fine_tuned_model.startswith("ft:tiny:")
    assert done.trained_tokens
    assert job.id in [listed.id for listed in openai.fine_tuning.jobs.list(limit=2)]

    events = list(openai.fine_tuning.jobs.list_events(job.id, limit=2))  # pages until there is no more
    assert len(events) > 4
    assert len({event.id for event in events}) == len(events)
    assert events[0].message.startswith("Succeeded")
    assert events[-1].message.startswith("Created")

    checkpoints = list(openai.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [6, 5]
    with Client(platform.api_url, platform.api_key) as client:
        folder = client.download_checkpoint(checkpoints[0].id, tmp_path / "checkpoint")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    assert transformers.AutoTokenizer.from_pretrained(folder)("1+1=")["input_ids"]


def test_it_pauses_resumes_and_cancels(openai: OpenAI, create_job: CreateJob) -> None:
    job = create_job(num_steps=1_000_000)
    wait_for(openai, job.id, lambda job: getattr(job, "step", 0) >= 1)
    openai.fine_tuning.jobs.pause(job.id)
    wait_for(openai, job.id, lambda job: str(job.status) == "paused")
    assert openai.fine_tuning.jobs.resume(job.id).status == "queued"
    wait_for(openai, job.id, lambda job: job.status == "running")
    openai.fine_tuning.jobs.cancel(job.id)
    cancelled = wait_for(openai, job.id, lambda job: job.status == "cancelled")
    assert cancelled.finished_at is not None


def test_its_typed_errors_carry_our_message_and_code(
    openai: OpenAI, platform: RunningPlatform, base_model: str
) -> None:
    with pytest.raises(dialect.NotFoundError, match="There is no job") as missing:
        openai.fine_tuning.jobs.retrieve("ftjob-0")
    assert missing.value.code == "job_not_found"
    grader = {"type": "string_check", "name": "a", "input": "", "reference": "", "operation": "eq"}
    method: Any = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    with pytest.raises(dialect.NotFoundError, match="GET /v1/files") as no_file:
        openai.fine_tuning.jobs.create(model=base_model, training_file="file-0", method=method)
    assert no_file.value.param == "training_file"
    with pytest.raises(dialect.UnprocessableEntityError, match="method is missing"):
        openai.fine_tuning.jobs.create(model=base_model, training_file="file-0")
    with (
        OpenAI(base_url=f"{platform.api_url}/v1", api_key="stapo_wrong") as stranger,
        pytest.raises(dialect.AuthenticationError, match="not known"),
    ):
        stranger.models.list()
