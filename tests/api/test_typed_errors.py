"""Refusals that need small limits, as the official client's own exceptions with our message and code."""

from __future__ import annotations

from collections.abc import Iterator

import openai as dialect
import pytest
from openai import OpenAI

from api.settings import Settings
from tests.api.conftest import Service
from tests.api.streams import headers_of


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limit": "4/minute", "max_live_jobs": 1})


@pytest.fixture
def client(service: Service, server: str) -> Iterator[OpenAI]:
    key = headers_of(service)["Authorization"].removeprefix("Bearer ")
    with OpenAI(base_url=f"{server}/v1", api_key=key, max_retries=0) as client:
        yield client


def test_a_rate_and_a_quota_that_are_used_up_are_rate_limit_errors(service: Service, client: OpenAI) -> None:
    job = service.create_job()
    method = {"type": "reinforcement", "reinforcement": {"grader": {"type": "numeric", "reference": "{{item.answer}}"}}}
    with pytest.raises(dialect.RateLimitError, match="the most allowed") as quota:
        client.fine_tuning.jobs.create(model="tiny", training_file=job["training_file"], method=method)  # type: ignore[arg-type]  # our grader
    assert quota.value.code == "quota_exceeded"
    for _ in range(3):
        client.models.list()
    with pytest.raises(dialect.RateLimitError, match="come back in") as rate:
        client.models.list()
    assert rate.value.code == "rate_limit_exceeded"
    assert rate.value.type == "rate_limit_error"
    # Four calls in a minute that has just begun: in the next they weigh 4 (1 - t), which is 3 at t = 1/4, after 75 s.
    assert 1 <= int(rate.value.response.headers["retry-after"]) <= 75


def test_a_file_that_is_too_large_is_named_by_its_limit(client: OpenAI) -> None:
    with pytest.raises(dialect.APIStatusError, match="larger than 100000 bytes") as refused:
        client.files.create(file=("t.jsonl", b'{"prompt": "1"}\n' * 8000), purpose="fine-tune")
    assert (refused.value.status_code, refused.value.code) == (413, "payload_too_large")


def test_a_model_that_nobody_answers_for_is_an_error_of_the_service(client: OpenAI) -> None:
    with pytest.raises(dialect.InternalServerError, match="No worker is alive") as nobody:
        client.completions.create(model="tiny", prompt="1+1=")
    assert nobody.value.status_code == 503
    assert nobody.value.code == "no_worker"
