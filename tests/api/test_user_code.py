"""Graders that run foreign programs: refused by field until the operator allows them, and then run in the sandbox."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.settings import Settings
from tests.api.conftest import Service

JOBS = "/v1/fine_tuning/jobs"
RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"
PYTHON = {"type": "python", "source": "def grade(sample, item): return len(sample['output_text']) / item['n']"}
CODE = {"type": "code", "program": "whole_text", "reference": "{{item.answer}}"}
LENGTH = {"type": "length", "max_length": 5}
MULTI = {"type": "multi", "graders": {"short": LENGTH, "tested": CODE}, "calculate_output": "short * tested"}


@pytest.mark.parametrize(("grader", "place"), [(PYTHON, ""), (CODE, ""), (MULTI, ".graders.tested")])
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_job_is_refused_and_the_field_and_the_remedy_are_named(
    service: Service, grader: dict[str, Any], place: str, query: str
) -> None:
    body = service.job_body(reinforcement={"grader": grader})
    answer = service.client.post(JOBS + query, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "user_code_disabled")
    assert answer.json()["param"] == f"method.reinforcement.grader{place}"
    assert "STAPO_USER_CODE=sandboxed" in answer.json()["detail"]
    assert service.client.get(JOBS).json()["data"] == []


def test_a_fork_cannot_bring_one_in(service: Service) -> None:
    job = service.create_job()
    service.add_checkpoint(job["id"], 1)
    answer = service.client.post(f"{JOBS}/{job['id']}/fork", json={"grader": CODE})
    assert (answer.status_code, answer.json()["code"]) == (422, "user_code_disabled")


def test_neither_checking_nor_trying_a_grader_runs_a_program(service: Service) -> None:
    checked = service.client.post(VALIDATE, json={"grader": PYTHON})
    tried = service.client.post(RUN, json={"grader": PYTHON, "item": {"n": 4}, "model_sample": "ab"})
    for answer in (checked, tried):
        assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (
            422, "user_code_disabled", "grader",
        )  # fmt: skip


class TestAllowed:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"user_code": "sandboxed"})

    def test_jobs_are_taken_and_graders_tried(self, service: Service) -> None:
        assert service.create_job(reinforcement={"grader": CODE})["state"] == "queued"
        assert service.client.post(VALIDATE, json={"grader": MULTI}).json()["item_fields"] == ["answer"]
        tried = service.client.post(RUN, json={"grader": PYTHON, "item": {"n": 4}, "model_sample": "ab"}).json()
        assert (tried["reward"], tried["metadata"]["errors"]["other_error"]) == (0.5, False)

    def test_a_program_that_met_a_limit_is_told_from_a_wrong_one(self, service: Service) -> None:
        asked = {"grader": CODE | {"timeout_s": 1}, "item": {"answer": "assert f(1) == 1"}}
        tried = [
            service.client.post(RUN, json=asked | {"model_sample": program})
            for program in ("while True: pass", "def f(n): return 0")
        ]
        assert [each.json()["reward"] for each in tried] == [0.0, 0.0]
        assert [each.json()["metadata"]["note"] for each in tried] == ["timeout", None]

    def test_a_grader_that_reaches_for_the_service_gets_nothing(self, service: Service) -> None:
        source = f"def grade(sample, item): return len(open({str(service.settings.home / 'models')!r}).read())"
        grader = {"type": "python", "source": source}
        tried = service.client.post(RUN, json={"grader": grader, "item": {}, "model_sample": ""}).json()
        errors = tried["metadata"]["errors"]
        assert (tried["reward"], errors["python_grader_runtime_error_details"]) == (0.0, "PermissionError")


def test_the_setting_is_off_unless_it_is_one_of_its_words() -> None:
    required: dict[str, Any] = {"home": "/x", "database_url": "x", "broker_url": "x"}
    assert not Settings(**required).allows_user_code
    assert Settings(**required, user_code="sandboxed").allows_user_code
    with pytest.raises(ValidationError, match="user_code"):
        Settings(**required, user_code="yes")
