from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from api.store import jobs, leases, metrics
from tests.api.conftest import Service, to_jsonl


def test_every_auto_is_resolved_and_given_back(service: Service) -> None:
    job = service.create_job(reinforcement={"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}})
    config = job["method"]["reinforcement"]["config"]
    assert job["hyperparameters"] == {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1.0}
    assert (job["num_steps"], config["num_steps"]) == (15, 15)  # 10 rows x 3 epochs / 2 prompts
    assert config["algorithm"]["tau_p"] == 0.002
    assert (job["status"], job["state"]) == ("queued", "queued")
    assert isinstance(job["seed"], int)


def test_the_short_list_sets_the_config(service: Service) -> None:
    short = {"batch_size": 5, "learning_rate_multiplier": 2.0, "eval_interval": 7, "eval_samples": 3}
    job = service.create_job(reinforcement={"hyperparameters": short, "config": {"optimizer": {"learning_rate": 1e-5}}})
    config = job["method"]["reinforcement"]["config"]
    assert config["batch"]["num_prompts"] == 5
    assert config["optimizer"]["learning_rate"] == pytest.approx(2e-5)
    assert (config["evaluation"]["every_steps"], config["evaluation"]["num_samples"]) == (7, 3)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *folders, name = path.split(".")
        for folder in folders:
            body = body.setdefault(folder, {})
        body[name] = value

    return change


R = "method.reinforcement"


@pytest.mark.parametrize(
    ("change", "param", "remedy"),
    [
        (_set(f"{R}.config.algorithm", {"kind": "stapo", "tau_q": 1}), f"{R}.config.algorithm.tau_q", "'tau_p'"),
        (_set(f"{R}.config.batch.num_promts", 3), f"{R}.config.batch.num_promts", "'num_prompts'"),
        (_set(f"{R}.config.algorithm", {"tau_p": 1.5, "kind": "stapo"}), f"{R}.config.algorithm.tau_p", "less than 1"),
        (_set(f"{R}.config.algorithm.kind", "ppo"), f"{R}.config.algorithm", "grpo"),
        (_set(f"{R}.config.batch.group_size", 1), f"{R}.config.batch.group_size", "greater than or equal to 2"),
        (_set(f"{R}.config.batch.num_minibatches", 3), f"{R}.config.batch", "[1, 2]"),
        (_set(f"{R}.grader.type", "oracle"), f"{R}.grader", "numeric"),
        (_set(f"{R}.grader.reference", "{{item.solution}}"), "training_file", "line 1"),
        (_set(f"{R}.grader.reference", "{{nonsense}}"), f"{R}.grader", "nonsense"),
        (_set(f"{R}.hyperparameters.batch_size", 7), f"{R}.hyperparameters.batch_size", "only one"),
        (_set(f"{R}.hyperparameters.n_epochs", 10**18), f"{R}.hyperparameters.n_epochs", "less than 2147483648"),
        (_set(f"{R}.hyperparameters.n_epochs", 2**30), f"{R}.hyperparameters.n_epochs", "5368709120 steps"),
        (_set(f"{R}.config.num_steps", 10**30), f"{R}.config.num_steps", "less than 2147483648"),
        (_set("suffix", "a b"), "suffix", "pattern"),
        (_set("metadata", {"k": "v" * 513}), "metadata.k", "512"),
        (_set("modle", "x"), "modle", "'model'"),
    ],
)
def test_a_bad_field_is_named_with_its_remedy_and_nothing_is_queued(
    service: Service, change: Callable[[dict[str, Any]], None], param: str, remedy: str
) -> None:
    body = service.job_body()
    change(body)
    answer = service.client.post("/v1/fine_tuning/jobs", json=body)
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert problem["param"] == param
    assert problem["error"]["param"] == param
    assert remedy in problem["detail"]
    assert service.client.get("/v1/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs?dry_run=true"])
@pytest.mark.parametrize(
    ("field", "share", "most"),
    [
        ("config.batch.num_prompts", 0.0, 10),
        ("config.batch.num_prompts", 0.2, 8),
        ("hyperparameters.batch_size", 0.2, 8),
    ],
)
def test_a_step_of_more_prompts_than_there_are_rows_is_refused_by_its_field(
    service: Service, path: str, field: str, share: float, most: int
) -> None:
    body = service.job_body(reinforcement={"config": {"evaluation": {"held_out_share": share}, "batch": {}}})
    _set(f"{R}.hyperparameters", {})(body)
    _set(f"{R}.{field}", most + 1)(body)
    answer = service.client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "too_few_rows", f"{R}.{field}")
    assert f"set {field.rpartition('.')[2]} to at most {most} or add rows" in answer.json()["detail"]
    _set(f"{R}.{field}", most)(body)
    assert service.client.post(path, json=body).is_success


@pytest.mark.parametrize(("num_minibatches", "num_prompts"), [(1, 10), (4, 8)])
def test_an_automatic_batch_is_made_to_fit_the_rows(service: Service, num_minibatches: int, num_prompts: int) -> None:
    config = {"evaluation": {"held_out_share": 0.0}, "batch": {"num_minibatches": num_minibatches}}

    answer = service.client.post("/v1/fine_tuning/jobs", json=service.job_body(reinforcement={"config": config}))

    reinforcement = answer.json()["method"]["reinforcement"]
    assert reinforcement["hyperparameters"]["batch_size"] == num_prompts  # of ten rows
    assert reinforcement["config"]["batch"]["num_prompts"] == num_prompts
    assert answer.json()["num_steps"] == 1


def test_an_infinite_learning_rate_is_refused(service: Service) -> None:
    body = service.job_body(reinforcement={"config": {"optimizer": {"learning_rate": 1.0}}})
    text = service.client.build_request("POST", "/", json=body).content.replace(b"1.0", b"Infinity")
    answer = service.client.post("/v1/fine_tuning/jobs", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "learning_rate" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [("model", "gpt-9", "model_not_found"), ("training_file", "file-0", "file_not_found")],
)
def test_what_does_not_exist_is_named(service: Service, field: str, value: str, code: str) -> None:
    answer = service.client.post("/v1/fine_tuning/jobs", json=service.job_body(**{field: value}))
    assert answer.status_code == 404
    assert (answer.json()["code"], answer.json()["param"]) == (code, field)


def test_another_tenants_file_and_job_do_not_exist(service: Service) -> None:
    job = service.create_job()
    answer = service.stranger.post("/v1/fine_tuning/jobs", json=service.job_body())
    assert answer.status_code == 404
    path = f"/v1/fine_tuning/jobs/{job['id']}"
    for suffix in ("", "/events", "/metrics", "/metrics/stream", "/events/stream", "/checkpoints"):
        assert service.stranger.get(path + suffix).status_code == 404, suffix
    for action in ("cancel", "pause", "resume", "stream_ticket"):
        assert service.stranger.post(f"{path}/{action}").status_code == 404, action
    assert service.client.get(path).json()["state"] == "queued"


def test_the_same_request_with_the_same_key_makes_one_job(service: Service) -> None:
    body, headers = service.job_body(), {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: service.client.post("/v1/fine_tuning/jobs", json=body, headers=headers), range(16))
        )
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(made) == 1
    assert len(service.client.get("/v1/fine_tuning/jobs").json()["data"]) == 1


def test_a_key_that_stood_for_another_request_is_refused(service: Service) -> None:
    body, headers = service.job_body(), {"Idempotency-Key": "once"}
    service.client.post("/v1/fine_tuning/jobs", json=body, headers=headers)
    answer = service.client.post("/v1/fine_tuning/jobs", json=body | {"seed": 5}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_a_queued_job_is_cancelled_at_once_and_stays_so(service: Service) -> None:
    job = service.create_job()
    path = f"/v1/fine_tuning/jobs/{job['id']}"
    assert service.client.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert service.client.post(f"{path}/cancel").json()["status"] == "cancelled"
    answer = service.client.post(f"{path}/resume")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "The job has ended (cancelled) and takes no resume; what it takes: nothing more."


@pytest.mark.parametrize(
    ("state", "action", "allowed"),
    [
        ("exporting", "pause", "cancel"),
        ("running", "resume", "cancel, pause"),
        ("paused", "pause", None),
        ("cancelling", "pause", "nothing more"),
        ("recovering", "resume", "cancel, pause"),
    ],
)
def test_an_action_that_the_state_does_not_allow_names_those_that_it_does(
    service: Service, state: str, action: str, allowed: str | None
) -> None:
    job_id = service.create_job()["id"]
    with service.database.transaction() as session:
        jobs.lock_job(session, "ours", job_id).state = state
    answer = service.client.post(f"/v1/fine_tuning/jobs/{job_id}/{action}")
    if allowed is None:
        assert answer.status_code == 200
    else:
        detail = f"The job is {state} and takes no {action}; what it takes: {allowed}."
        assert (answer.status_code, answer.json()["detail"]) == (409, detail)


def test_a_paused_job_waits_until_it_is_resumed(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    assert service.client.post(f"{path}/pause").json()["status"] == "paused"
    resumed = service.client.post(f"{path}/resume").json()
    assert (resumed["status"], resumed["queue"]["position"]) == ("queued", 1)


def test_a_waiting_job_knows_its_place_and_the_reason(service: Service) -> None:
    first, second = service.create_job(), service.create_job()
    nobody_knows = {"eta_low": None, "eta_high": None}
    assert first["queue"] == {"position": 1, "reason": "no worker is alive"} | nobody_knows
    assert second["queue"]["position"] == 2


def test_a_waiting_job_knows_between_when_and_when_it_starts(service: Service) -> None:
    def run(*, step: int, step_s: float | None = None) -> None:
        job_id = service.create_job()["id"]
        with service.database.transaction() as session:
            job = jobs.lock_job(session, "ours", job_id)
            job.state, job.step, job.worker = "running", step, "w"
            if step_s is not None:
                metrics.add_metrics(session, job, "train", step, {"speed/step_s": step_s}, datetime.now(UTC))

    def expect(job: dict[str, Any], low: float | None, high: float | None) -> None:
        queue = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["queue"]
        for name, seconds in (("eta_low", low), ("eta_high", high)):
            assert queue[name] == (None if seconds is None else pytest.approx(time.time() + seconds, abs=60)), name

    run(step=3, step_s=1000.0)  # of 5 steps
    run(step=1, step_s=1000.0)
    first, second, third = (service.create_job() for _ in range(3))
    expect(first, None, None)  # no worker is alive
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=2)
    expect(first, 2000, 2000)
    expect(second, 2000, 4000)
    expect(third, 2000, None)
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=3)
    expect(first, 0, 0)
    expect(second, 0, 2000)
    run(step=0)  # it takes the third slot and has told no pace
    expect(first, 0, 2000)
    expect(third, 0, None)


def test_jobs_are_filtered_by_status(service: Service) -> None:
    kept, gone = service.create_job(), service.create_job()
    service.client.post(f"/v1/fine_tuning/jobs/{gone['id']}/cancel")
    listed = service.client.get("/v1/fine_tuning/jobs", params={"status": "queued"}).json()["data"]
    assert [job["id"] for job in listed] == [kept["id"]]


def test_an_unchanged_job_answers_304(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    etag = service.client.get(path).headers["etag"]
    assert service.client.get(path, headers={"If-None-Match": etag}).status_code == 304
    service.client.post(f"{path}/pause")
    assert service.client.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_events_tell_the_moves_in_one_sequence(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    service.client.post(f"{path}/pause")
    service.client.post(f"{path}/resume")
    page = service.client.get(f"{path}/events", params={"order": "asc", "limit": 2}).json()
    rest = service.client.get(f"{path}/events", params={"order": "asc", "after": page["last_id"]}).json()
    told = page["data"] + rest["data"]
    assert [event["seq"] for event in told] == [1, 2, 3]
    assert [event["data"].get("to") for event in told] == [None, "paused", "queued"]


def test_a_row_without_the_graders_field_is_named_by_line(service: Service) -> None:
    file = service.upload(to_jsonl([{"prompt": "a", "answer": "1"}, {"prompt": "b"}]))
    answer = service.client.post("/v1/fine_tuning/jobs", json=service.job_body(training_file=file["id"]))
    assert answer.status_code == 422
    assert "line 2" in answer.json()["detail"]
    assert "answer" in answer.json()["detail"]
