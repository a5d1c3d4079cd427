"""The official client of the dialect, unchanged, against the running platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai as dialect
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from client.http import Client
from client.running import RunningPlatform
from tests.end_to_end.conftest import CreateJob, wait_for

JSON = {"Content-Type": "application/json"}


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
    openai: OpenAI, trained: FineTuningJob, platform: RunningPlatform, tmp_path: Path
) -> None:
    job = trained
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("ft:tiny:")
    assert job.trained_tokens
    assert job.id in [listed.id for listed in openai.fine_tuning.jobs.list(limit=100)]

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


def test_it_lists_and_retrieves_models(openai: OpenAI, trained: FineTuningJob) -> None:
    listed = {model.id: model for model in openai.models.list()}
    assert {"tiny", str(trained.fine_tuned_model), f"{trained.fine_tuned_model}:ckpt-step-5"} <= set(listed)
    for name, model in listed.items():
        assert openai.models.retrieve(name) == model
        assert model.object == "model"


def test_it_validates_and_runs_a_grader(openai: OpenAI) -> None:
    grader: Any = {
        "type": "string_check",
        "name": "right",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "operation": "eq",
    }
    graders = openai.fine_tuning.alpha.graders
    checked = graders.validate(grader=grader).grader
    assert checked is not None
    assert checked.type == "string_check"
    right = graders.run(grader=grader, item={"answer": "3"}, model_sample="3")
    wrong = graders.run(grader=grader, item={"answer": "3"}, model_sample="4")
    assert [right.reward, wrong.reward] == [1.0, 0.0]
    assert right.metadata.name == "right"
    with pytest.raises(dialect.UnprocessableEntityError, match="has no field 'answer'"):
        graders.run(grader=grader, item={}, model_sample="3")


def test_it_asks_the_fine_tuned_model_and_a_checkpoint_of_it(openai: OpenAI, trained: FineTuningJob) -> None:
    for model in (str(trained.fine_tuned_model), f"{trained.fine_tuned_model}:ckpt-step-5"):
        whole = openai.completions.create(model=model, prompt="1+1=", max_tokens=6, seed=3, n=2)
        assert [choice.index for choice in whole.choices] == [0, 1]
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == 4  # one token per character
        parts = list(openai.completions.create(model=model, prompt="1+1=", max_tokens=6, seed=3, n=2, stream=True))
        for choice in whole.choices:
            own = [part.choices[0] for part in parts if part.choices and part.choices[0].index == choice.index]
            assert "".join(each.text for each in own) == choice.text
            assert own[-1].finish_reason == choice.finish_reason


def test_it_chats_with_the_fine_tuned_model(openai: OpenAI, trained: FineTuningJob) -> None:
    asked: Any = {
        "model": str(trained.fine_tuned_model),
        "messages": [{"role": "user", "content": "1+1="}],
        "max_completion_tokens": 6,
        "seed": 3,
    }
    whole = openai.chat.completions.create(**asked).choices[0]
    chunks = [chunk.choices[0] for chunk in openai.chat.completions.create(**asked, stream=True) if chunk.choices]
    assert whole.message.role == "assistant"
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].finish_reason == whole.finish_reason


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


def test_every_refusal_is_an_exception_of_its_own(
    openai: OpenAI, platform: RunningPlatform, trained: FineTuningJob
) -> None:
    with pytest.raises(dialect.ConflictError, match="has ended") as ended:
        openai.fine_tuning.jobs.resume(trained.id)
    assert ended.value.code == "illegal_state"
    with pytest.raises(dialect.ConflictError) as in_use:
        openai.files.delete(trained.training_file)
    assert in_use.value.code == "file_in_use"
    with pytest.raises(dialect.BadRequestError, match="not JSON") as unreadable:
        openai.post("/fine_tuning/jobs", cast_to=object, content=b"{", options={"headers": JSON})
    assert unreadable.value.code == "bad_request"
    with Client(platform.api_url, platform.api_key) as client:
        key = client.create_api_key("reader", scopes=["jobs:read"])
    with OpenAI(base_url=f"{platform.api_url}/v1", api_key=key["key"]) as reader:
        assert reader.fine_tuning.jobs.retrieve(trained.id).id == trained.id
        with pytest.raises(dialect.PermissionDeniedError, match="jobs:write") as forbidden:
            reader.fine_tuning.jobs.cancel(trained.id)
    assert forbidden.value.code == "insufficient_scope"
    with Client(platform.api_url, platform.api_key) as client:
        client.revoke_api_key(key["id"])
