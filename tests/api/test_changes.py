from __future__ import annotations

import json
from typing import Any

import pytest

from api.store import artifacts, jobs, leases
from tests.api.conftest import Service

JOBS = "/v1/fine_tuning/jobs"
SIZES = {
    "vocab_size": 100,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}


def test_a_dry_run_resolves_and_estimates_and_queues_nothing(service: Service) -> None:
    (service.settings.models_dir / "tiny" / "config.json").write_text(json.dumps(SIZES))
    answer = service.client.post(JOBS, params={"dry_run": True}, json=service.job_body())
    preview = answer.json()
    assert answer.status_code == 200
    assert preview["num_steps"] == 5  # 10 rows, 2 prompts per step
    assert preview["method"]["reinforcement"]["config"]["num_steps"] == 5
    assert preview["estimate"]["responses_per_step"] == 8
    assert preview["estimate"]["responses"] == 40
    assert preview["estimate"]["max_response_tokens"] == 40 * 2048
    assert preview["estimate"]["memory_bytes"]["cpu"] > 0
    assert preview["estimate"]["flops"] == 5 * preview["estimate"]["flops_per_step"]
    assert service.client.get(JOBS).json()["data"] == []


def test_a_dry_run_refuses_what_a_job_would_be_refused_for(service: Service) -> None:
    answer = service.client.post(JOBS, params={"dry_run": True}, json=service.job_body(model="gpt-9"))
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_labels_change_and_the_rest_stays(service: Service) -> None:
    job = service.create_job(metadata={"team": "a"}, name="first")
    path = f"{JOBS}/{job['id']}"
    changed = service.client.patch(path, json={"name": "second", "priority": 3}).json()
    assert (changed["name"], changed["priority"], changed["metadata"]) == ("second", 3, {"team": "a"})
    bare = service.client.patch(path, json={"name": None, "metadata": None}).json()
    assert (bare["name"], bare["priority"], bare["metadata"]) == (None, 3, {})
    assert service.client.get(path).json() == bare
    assert service.client.get(f"{path}/events").json()["data"][0]["message"] == "Changed: metadata, name."


def test_a_change_of_what_has_changed_since_is_refused(service: Service) -> None:
    path = f"{JOBS}/{service.create_job()['id']}"
    etag = service.client.get(path).headers["etag"]
    first = service.client.patch(path, json={"name": "a"}, headers={"If-Match": etag})
    second = service.client.patch(path, json={"name": "b"}, headers={"If-Match": etag})
    third = service.client.patch(path, json={"name": "c"}, headers={"If-Match": first.headers["etag"]})
    assert [answer.status_code for answer in (first, second, third)] == [200, 412, 200]
    assert second.json()["code"] == "precondition_failed"


def test_what_a_worker_does_meanwhile_is_no_change(service: Service) -> None:
    path = f"{JOBS}/{service.create_job()['id']}"
    etag = service.client.get(path).headers["etag"]
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
        job = leases.claim_job(session, worker="w", lease_s=60.0)
        assert job is not None
        job.step = 1
    assert service.client.get(path).headers["etag"] != etag
    labelled = service.client.patch(path, json={"priority": 1}, headers={"If-Match": etag})
    assert labelled.status_code == 200
    service.client.post(f"{path}/cancel")
    late = service.client.patch(path, json={"priority": 2}, headers={"If-Match": labelled.headers["etag"]})
    assert late.status_code == 412


@pytest.mark.parametrize(
    ("if_match", "status"),
    [("*", 200), (' "x" , TAG', 200), ("TAG", 200), ("W/TAG", 412), ('"x"', 412), ("x", 412), ("", 412)],
)
def test_a_change_names_the_versions_that_it_is_meant_for(service: Service, if_match: str, status: int) -> None:
    path = f"{JOBS}/{service.create_job()['id']}"
    headers = {"If-Match": if_match.replace("TAG", service.client.get(path).headers["etag"])}
    assert service.client.patch(path, json={"priority": 1}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("if_none_match", "status"), [("*", 304), ("TAG", 304), ("W/TAG", 304), ('"x", W/TAG', 304), ('"x"', 200)]
)
def test_a_read_names_the_versions_that_it_has(service: Service, if_none_match: str, status: int) -> None:
    path = f"{JOBS}/{service.create_job()['id']}"
    headers = {"If-None-Match": if_none_match.replace("TAG", service.client.get(path).headers["etag"])}
    assert service.client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize("body", [{"priority": 11}, {"priority": None}, {"name": ""}, {"model": "x"}, {"state": "x"}])
def test_nothing_else_can_be_changed(service: Service, body: dict[str, Any]) -> None:
    assert service.client.patch(f"{JOBS}/{service.create_job()['id']}", json=body).status_code == 422


def test_jobs_are_found_by_metadata_and_model(service: Service) -> None:
    wanted = service.create_job(metadata={"team": "a", "try": "1"})
    service.create_job(metadata={"team": "b", "try": "1"})

    def found(**query: str) -> list[str]:
        return [job["id"] for job in service.client.get(JOBS, params=query).json()["data"]]

    assert found(**{"metadata[team]": "a"}) == [wanted["id"]]
    assert found(**{"metadata[team]": "a", "metadata[try]": "2"}) == []
    assert len(found(**{"metadata[try]": "1", "model": "tiny"})) == 2
    assert found(model="other") == []


def test_a_fork_begins_at_the_newest_checkpoint_with_the_changes_merged_in(service: Service) -> None:
    parent = service.create_job(suffix="mine", metadata={"k": "v"})
    service.add_checkpoint(parent["id"], 2)
    newest = service.add_checkpoint(parent["id"], 4)
    body = {"config": {"optimizer": {"learning_rate": 1e-5}, "num_steps": 3}, "seed": 9, "name": "forked"}
    answer = service.client.post(f"{JOBS}/{parent['id']}/fork", json=body)
    fork = answer.json()
    assert answer.status_code == 201, fork
    config, own = (job["method"]["reinforcement"]["config"] for job in (fork, parent))
    assert fork["base_checkpoint"] == newest
    assert (fork["seed"], fork["name"], fork["num_steps"], fork["suffix"]) == (9, "forked", 3, "mine")
    assert config["optimizer"] == own["optimizer"] | {"learning_rate": 1e-5}
    assert config["batch"] == own["batch"]
    assert (fork["model"], fork["training_file"], fork["metadata"]) == ("tiny", parent["training_file"], {"k": "v"})


def test_what_a_job_holds_out_does_not_pass_to_a_fork_that_names_a_file(service: Service) -> None:
    many = service.upload([{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(200)])["id"]
    parent, few = service.create_job(training_file=many), service.upload()["id"]
    service.add_checkpoint(parent["id"], 2)

    def fork(**body: Any) -> tuple[int, Any]:
        answer = service.client.post(f"{JOBS}/{parent['id']}/fork", json=body)
        told = answer.json().get("method")
        return answer.status_code, told and told["reinforcement"]["config"]["evaluation"]["held_out_share"]

    own = {"config": {"evaluation": {"held_out_share": 0.25}}}
    assert parent["method"]["reinforcement"]["config"]["evaluation"]["held_out_share"] == 0.05
    assert fork() == (201, 0.05)
    assert fork(validation_file=few) == (201, 0.0)
    assert fork(training_file=few) == (201, 0.0)
    assert fork(training_file=few, **own) == (201, 0.25)
    assert fork(validation_file=few, **own)[0] == 422  # by whoever asked for both


def test_another_algorithm_brings_its_own_constants(service: Service) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    body = {"config": {"algorithm": {"kind": "grpo"}}}
    fork = service.client.post(f"{JOBS}/{parent['id']}/fork", json=body).json()
    algorithm = fork["method"]["reinforcement"]["config"]["algorithm"]
    assert (algorithm["kind"], algorithm["clip_high"]) == ("grpo", 0.2)
    assert "tau_p" not in algorithm


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"checkpoint": "ftckpt-0"}, 404, "checkpoint"),
        ({"config": {"batch": {"group_size": 1}}}, 422, "config.batch.group_size"),
        ({"config": {"algorithm": {"tau_p": 9}}}, 422, "config.algorithm.tau_p"),
        ({"training_file": "file-0"}, 404, "training_file"),
        ({"model": "tiny"}, 422, "model"),
    ],
)
def test_a_fork_that_cannot_be_is_refused_by_field(
    service: Service, body: dict[str, Any], status: int, param: str
) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    answer = service.client.post(f"{JOBS}/{parent['id']}/fork", json=body)
    assert (answer.status_code, answer.json()["param"]) == (status, param)


def test_there_is_no_fork_without_a_whole_model(service: Service) -> None:
    parent = service.create_job()
    path = f"{JOBS}/{parent['id']}/fork"
    assert service.client.post(path, json={}).json()["code"] == "no_checkpoint"
    service.add_checkpoint(parent["id"], 2, paths=["adapter_config.json", "adapter_model.safetensors"])
    assert service.client.post(path, json={}).json()["code"] == "checkpoint_holds_adapters"


def test_a_checkpoint_that_a_fork_begins_at_is_kept(service: Service) -> None:
    parent = service.create_job()
    first = service.add_checkpoint(parent["id"], 1)
    assert service.client.post(f"{JOBS}/{parent['id']}/fork", json={"checkpoint": first}).status_code == 201
    for step in (2, 3, 4):
        service.add_checkpoint(parent["id"], step)
    with service.database.transaction() as session:
        dropped = artifacts.drop_checkpoints(session, jobs.lock_job(session, "ours", parent["id"]), keep=1)
    assert sorted(dropped) == [2, 3]
    kept = service.client.get(f"{JOBS}/{parent['id']}/checkpoints").json()["data"]
    assert [checkpoint["step_number"] for checkpoint in kept] == [4, 1]


def test_a_job_may_name_a_fine_tuned_model_or_a_checkpoint_of_the_tenant(service: Service) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 3)
    final = service.add_checkpoint(parent["id"], 5, final=True)
    name = service.client.get(f"{JOBS}/{parent['id']}").json()["fine_tuned_model"]
    assert service.create_job(model=name)["base_checkpoint"] == final
    assert service.create_job(model=f"{name}:ckpt-step-3")["base_checkpoint"] != final
    for wrong in (f"{name}:ckpt-step-4", name.replace("tiny", "other"), "ft:tiny::0", f"{name}:ckpt-step-x"):
        answer = service.client.post(JOBS, json=service.job_body(model=wrong))
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found"), wrong
    theirs = service.stranger.post(JOBS, json=service.job_body(model=name))
    assert theirs.status_code == 404


def test_the_same_fork_with_the_same_key_is_made_once(service: Service) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    headers = {"Idempotency-Key": "once"}
    made = [service.client.post(f"{JOBS}/{parent['id']}/fork", json={}, headers=headers).json() for _ in range(2)]
    assert made[0] == made[1]
    assert len(service.client.get(JOBS).json()["data"]) == 2


def test_a_stranger_changes_and_forks_nothing(service: Service) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    assert service.stranger.patch(f"{JOBS}/{parent['id']}", json={"name": "x"}).status_code == 404
    assert service.stranger.post(f"{JOBS}/{parent['id']}/fork", json={}).status_code == 404
