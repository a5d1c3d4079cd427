"""A grader tried on a real model's own responses before a job is spent on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import probing
from api.schemas import GraderProbe
from api.store import leases
from stapo_core.graders.judges import JUDGES_FILE
from stapo_core.graders.score import Score, Verdicts
from tests.api.conftest import Service
from tests.stapo_core.graders.endpoint import KEY, saying, serve
from tests.stapo_core.tiny import make_model, make_tokenizer
from worker.answering import Answerer, WarmModels

PROBE = "/v1/fine_tuning/alpha/graders/probe"
DIGIT = {"type": "regex", "pattern": "[0-9]"}
JUDGE = {"type": "score_model", "model": "judge", "input": [{"role": "user", "content": "{{sample.output_text}}"}]}


@pytest.fixture
def answerer(service: Service, tmp_path: Path) -> Iterator[Answerer]:
    """A worker's answering thread, over a models folder that holds a small model."""
    make_model(spread=1.0).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    folder = service.settings.models_dir / "tiny"
    (folder / "config.json").unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path / "model")
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    models = WarmModels(most=1)
    answerer = Answerer(service.database, service.settings, models)
    answerer.start()
    yield answerer
    answerer.stop()
    models.close()


def asked(service: Service, grader: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "grader": grader,
        "model": "tiny",
        "training_file": service.upload()["id"],
        "num_prompts": 4,
        "num_samples": 4,
        "max_tokens": 3,
    } | changes


@pytest.mark.usefixtures("answerer")
def test_a_grader_is_probed_on_the_models_own_responses(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"digit": DIGIT, "right": {"type": "numeric", "reference": "{{item.answer}}"}}
    formula = {"type": "multi", "graders": parts, "calculate_output": "0.5 * digit + 0.5 * right"}
    body = asked(service, formula)
    first = service.client.post(PROBE, json=body)
    assert first.status_code == 200, first.text
    found = first.json()
    assert (found["verdict"], found["num_prompts"], found["num_samples"]) == ("usable", 4, 4)
    total = found["total"]
    assert (total["num_judged"], total["errors"], total["minimum"]) == (16, {}, 0.0)
    assert [part["name"] for part in found["parts"]] == ["digit", "right"]
    half_of_both = 0.5 * found["parts"][0]["mean"] + 0.5 * found["parts"][1]["mean"]
    assert total["mean"] == pytest.approx(half_of_both)
    assert 0.0 < total["latency_p50_s"] <= total["latency_p95_s"]
    assert {example["score"] for example in found["examples"]} >= {0.0, 0.5}
    again = service.client.post(PROBE, json=body).json()
    assert again["examples"] == found["examples"]  # the same seed

    never = asked(service, {"type": "string_check", "reference": "never said", "operation": "eq"})
    one_score = service.client.post(PROBE, json=never).json()
    assert one_score["verdict"] == "one_score"
    assert (one_score["total"]["share_all_zero"], one_score["total"]["share_all_one"]) == (1.0, 0.0)
    assert "got the score 0" in one_score["reason"]

    with serve(saying("prose")) as endpoint:
        monkeypatch.setenv(JUDGES_FILE, str(endpoint.list_judges(service.settings.home)))
        failing = service.client.post(PROBE, json=asked(service, JUDGE, num_prompts=2, num_samples=2))
    assert failing.json()["verdict"] == "errors", failing.text
    assert failing.json()["total"]["errors"] == {"score_unreadable": 4}
    assert failing.json()["total"]["mean"] is None  # an error is no silent zero
    assert KEY not in failing.text


def test_what_cannot_be_probed_is_refused_by_its_field(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JUDGES_FILE, raising=False)
    refusals = {
        "grader": asked(service, DIGIT | {"input": "{{nonsense}}"}),
        "training_file": asked(service, {"type": "numeric", "reference": "{{item.no_such_field}}"}),
        "model": asked(service, DIGIT, model="no-such-model"),
    }
    for param, body in refusals.items():
        answer = service.client.post(PROBE, json=body)
        assert answer.status_code in (404, 422), answer.text
        assert answer.json()["param"].startswith(param), answer.text
    unknown = service.client.post(PROBE, json=asked(service, JUDGE))
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_judge")
    assert service.client.post(PROBE, json=asked(service, DIGIT)).json()["code"] == "no_worker"
    foreign = asked(service, DIGIT)
    assert service.stranger.post(PROBE, json=foreign).status_code == 404


def test_a_job_whose_judge_is_not_on_the_operators_list_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as endpoint:
        monkeypatch.setenv(JUDGES_FILE, str(endpoint.list_judges(service.settings.home)))
        body = service.job_body(reinforcement={"grader": JUDGE | {"model": "other"}})
        refused = service.client.post("/v1/fine_tuning/jobs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_judge")
        assert "there are: judge" in refused.json()["detail"]
        job = service.create_job(reinforcement={"grader": JUDGE})
        run = "/v1/fine_tuning/alpha/graders/run"
        tried = service.client.post(run, json={"grader": JUDGE, "model_sample": "4"}).json()
    assert (tried["reward"], tried["metadata"]["errors"]["model_grader_server_error"]) == (1.0, False)
    assert KEY not in service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").text
    assert endpoint.url not in service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").text


def test_problems_that_are_all_right_or_all_wrong_are_told_as_nothing_to_learn_from() -> None:
    body = GraderProbe.model_validate({"grader": DIGIT, "model": "m", "training_file": "f"})
    scores = [Score(0.0)] * 2 + [Score(1.0)] * 2
    found = probing.describe(body, [{"prompt": "a"}, {"prompt": "b"}], ["x"] * 4, Verdicts(scores, {}))
    assert found.total.share_equal == 1.0
    assert found.reason.startswith("No prompt got responses of different scores")


def test_the_figures_are_those_worked_out_by_hand() -> None:
    """Three problems of four responses: all 0; all 1; 0, 1, 1 and one that could not be judged."""
    values = [(0.0, None)] * 4 + [(1.0, None)] * 4 + [(0.0, None), (1.0, None), (1.0, None), (0.0, "timeout")]
    scores = [Score(value, error, seconds=n / 10) for n, (value, error) in enumerate(values, start=1)]
    scores[0] = replace(scores[0], note="out_of_memory")
    body = GraderProbe.model_validate({"grader": DIGIT, "model": "m", "training_file": "f"})
    rows = [{"prompt": name} for name in "abc"]
    found = probing.describe(body, rows, [str(n) for n in range(12)], Verdicts(scores, {"regex": scores}))
    total = found.total
    assert (total.num_judged, total.num_distinct) == (11, 2)
    assert total.mean == pytest.approx(6 / 11)
    assert total.std == pytest.approx((6 * 5) ** 0.5 / 11)
    assert (total.share_all_zero, total.share_all_one) == pytest.approx((1 / 3, 1 / 3))
    assert total.share_equal == pytest.approx(2 / 3)
    assert total.errors == {"timeout": 1}
    assert (total.notes, found.examples[0].note) == ({"out_of_memory": 1}, "out_of_memory")
    assert total.error_share == pytest.approx(1 / 12)
    assert (total.latency_p50_s, total.latency_p95_s) == pytest.approx((0.6, 1.2))
    assert found.verdict == "usable"
    assert [(each.prompt, each.score, each.error) for each in found.examples[:3]] == [
        ("a", 0.0, None),
        ("b", 1.0, None),
        ("c", 0.0, "timeout"),
    ]
