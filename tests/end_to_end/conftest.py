"""The whole platform with a tiny base model, seen through the official client of the dialect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from client.running import RunningPlatform
from tests.stapo_core.tiny import make_model, make_tokenizer

CONFIG: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "tau_p": 0.02, "entropy_scope": "all_tokens"},
    "batch": {"num_prompts": 2, "group_size": 4},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 8},
    "checkpoint": {"every_steps": 5},
    "record_rollouts_every": 0,
}


@pytest.fixture(scope="session")
def base_model(platform: RunningPlatform) -> str:
    folder = platform.home / "models" / "tiny"
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return "tiny"


@pytest.fixture(scope="session")
def openai(platform: RunningPlatform) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{platform.api_url}/v1", api_key=platform.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CreateJob = Callable[..., FineTuningJob]


@pytest.fixture(scope="session")
def create_job(openai: OpenAI, problems: Path, base_model: str) -> CreateJob:
    def create(*, num_steps: int) -> FineTuningJob:
        with problems.open("rb") as file:
            training_file = openai.files.create(file=file, purpose="fine-tune")
        method: Any = {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {
                    "type": "string_check",
                    "name": "answer",
                    "input": "{{sample.output_text}}",
                    "reference": "{{item.answer}}",
                    "operation": "like",
                },
                "config": CONFIG | {"num_steps": num_steps},
            },
        }
        return openai.fine_tuning.jobs.create(model=base_model, training_file=training_file.id, method=method, seed=3)

    return create


@pytest.fixture(scope="session")
def trained(openai: OpenAI, create_job: CreateJob) -> FineTuningJob:
    """A job that has succeeded after six steps, shared by the session."""
    job = create_job(num_steps=6)
    assert job.object == "fine_tuning.job"
    assert job.method is not None
    assert job.method.type == "reinforcement"
    return wait_for(openai, job.id, lambda job: job.status == "succeeded")


def wait_for(
    client: OpenAI, job_id: str, is_so: Callable[[FineTuningJob], bool], *, timeout_s: float = 180.0
) -> FineTuningJob:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if is_so(job):
            return job
        assert job.status != "failed", job.error
        time.sleep(0.1)
    raise AssertionError(f"still {job.status} after {timeout_s} s: {job}")
