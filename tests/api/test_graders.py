from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from stapo_core.config import MathGrader
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.score import Pair
from tests.api.conftest import Service

RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"


@pytest.mark.parametrize(
    ("grader", "item", "sample", "reward"),
    [
        ({"type": "string_check", "reference": "{{item.answer}}", "operation": "eq"}, {"answer": "4"}, "4", 1.0),
        ({"type": "string_check", "reference": "{{item.answer}}", "operation": "ne"}, {"answer": "4"}, "4", 0.0),
        ({"type": "numeric", "reference": "{{item.a.b}}"}, {"a": {"b": 12}}, "so it is 7, no, 12.0", 1.0),
        ({"type": "math", "reference": "{{item.answer}}"}, {"answer": "1/2"}, "\\boxed{0.5}", 1.0),
        ({"type": "math", "reference": "{{item.answer}}"}, {"answer": "1/2"}, "\\boxed{0.6}", 0.0),
    ],
)
def test_a_grader_is_tried_on_a_sample(
    service: Service, grader: dict[str, Any], item: dict[str, Any], sample: str, reward: float
) -> None:
    answer = service.client.post(RUN, json={"grader": grader, "item": item, "model_sample": sample})
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert result["reward"] == reward
    assert result["metadata"]["scores"] == {grader["type"]: reward}
    assert not result["metadata"]["errors"]["other_error"]


def test_what_the_grader_reads_and_the_item_lacks_is_named(service: Service) -> None:
    grader = {"type": "numeric", "reference": "{{item.answer}}"}
    answer = service.client.post(RUN, json={"grader": grader, "item": {}, "model_sample": "1"})
    assert (answer.status_code, answer.json()["param"]) == (422, "item")
    assert "answer" in answer.json()["detail"]


def test_a_grader_that_can_be_used_comes_back_with_its_defaults(service: Service) -> None:
    grader = {"type": "numeric", "reference": "{{item.meta.answer}}"}
    checked = service.client.post(VALIDATE, json={"grader": grader}).json()
    assert checked["item_fields"] == ["meta.answer"]
    assert checked["grader"]["relative_tolerance"] == 1e-9
    refused = service.client.post(VALIDATE, json={"grader": grader | {"reference": "{{nonsense}}"}})
    assert (refused.status_code, refused.json()["param"]) == (422, "grader")


def test_the_official_client_checks_and_tries_graders(service: Service, server: str) -> None:
    key = service.client.headers["authorization"].removeprefix("Bearer ")
    grader: Any = {
        "type": "string_check",
        "name": "same",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "operation": "eq",
    }
    with OpenAI(base_url=f"{server}/v1", api_key=key) as client:
        assert client.fine_tuning.alpha.graders.validate(grader=grader).grader is not None
        run = client.fine_tuning.alpha.graders.run(grader=grader, model_sample="4", item={"answer": "4"})
    assert run.reward == 1.0
    assert run.metadata.name == "same"
    assert not run.metadata.errors.other_error


def test_a_grader_whose_process_cannot_start_in_time_may_be_tried_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stapo_core.graders.children._START_S", 0.001)
    grader = {"type": "math", "reference": "{{item.answer}}"}

    answer = service.client.post(RUN, json={"grader": grader, "item": {"answer": "1"}, "model_sample": "1"})

    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert "could not start (timeout)" in answer.json()["detail"]


def test_a_child_that_reads_foreign_text_knows_no_setting_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAPO_DATABASE_URL", "postgresql://secret")
    scorer = MathScorer(MathGrader(type="math", reference="x"))
    scorer.score([Pair("\\boxed{2/4}", "1/2")])
    try:
        children = [path for path in Path("/proc").glob("[0-9]*/stat") if _parent_of(path) == os.getpid()]
        environments = [(path.parent / "environ").read_bytes() for path in children]
    finally:
        scorer.close()
    assert any(b"STAPO_PARENT_PID" in environment for environment in environments)
    assert not any(b"secret" in environment for environment in environments)


def _parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
