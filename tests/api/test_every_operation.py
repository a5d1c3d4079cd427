"""Generated from the OpenAPI document: every operation against strangers, scopes and hostile input."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.store import jobs, keys, metrics
from tests.api.conftest import Service
from tests.api.operations import OPERATIONS, PUBLIC, Operation
from tests.api.population import add_rollout

SCOPES = ("jobs:read", "jobs:write", "artifacts:read", "admin")
NAMES_AN_ID = {"after", "jobs", "validation_file"}
STREAMS = {"stream_job_metrics", "stream_job_events", "stream_job_log"}
HOSTILE = (
    "\x00",
    "a\x00b",
    "..",
    "../../etc/passwd",
    "'; DROP TABLE jobs; --",
    "ftjob-" + "0" * 5000,
    "💥",
    " ",
    "ft:",
)


@pytest.fixture
def ids(service: Service) -> dict[str, str]:
    """One of everything that has an id, all of it ours."""
    job = service.create_job()
    checkpoint_id = service.add_checkpoint(job["id"], 1, final=True)
    path = f"/v1/fine_tuning/jobs/{job['id']}"
    with service.database.transaction() as session:
        row = jobs.lock_job(session, "ours", job["id"])
        add_rollout(service.settings, session, row)
        metrics.add_metrics(session, row, "train", 1, {"a": 1.0}, datetime.now(UTC))
    return {
        "file_id": service.upload()["id"],
        "job_id": job["id"],
        "checkpoint_id": checkpoint_id,
        "path": "config.json",
        "rollout_id": service.client.get(f"{path}/rollouts").json()["data"][0]["id"],
        "key_id": service.client.post("/v1/api_keys", json={"name": "other"}).json()["id"],
        "model": service.client.get(path).json()["fine_tuned_model"],
        "event_id": service.client.get(f"{path}/events").json()["data"][0]["id"],
    }


def call(client: TestClient, operation: Operation, values: dict[str, str], **query: Any) -> Any:
    return client.request(operation.method, operation.url(values), params=query, json=operation.body)


def with_ids() -> list[Operation]:
    return [operation for operation in OPERATIONS if operation.path_names]


def test_no_operation_tells_a_stranger_that_an_id_exists(service: Service, ids: dict[str, str]) -> None:
    assert len(with_ids()) > 25
    answers = {operation.name: call(service.stranger, operation, ids, jobs="x", keys="a") for operation in with_ids()}
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 404} == {}
    known = {name: call(service.client, operation, ids).status_code for name, operation in readable().items()}
    assert {name: status for name, status in known.items() if status != 200} == {}  # so the ids were right


def readable() -> dict[str, Operation]:
    chosen = (operation for operation in with_ids() if operation.method == "GET" and operation.name not in STREAMS)
    return {operation.name: operation for operation in chosen}


def test_no_query_tells_a_stranger_that_an_id_exists(service: Service, ids: dict[str, str]) -> None:
    """A stranger with things of the same kinds names ours where an id may stand."""
    job = service.stranger.post("/v1/fine_tuning/jobs", json=strangers_job(service)).json()
    own = {
        "job_id": job["id"],
        "file_id": job["training_file"],
        "checkpoint_id": "",
        "rollout_id": "",
        "key_id": "",
        "model": "tiny",
        "path": "",
    }
    foreign = {
        ("list_files", "after"): ids["file_id"],
        ("validate_file", "validation_file"): ids["file_id"],
        ("list_jobs", "after"): ids["job_id"],
        ("list_job_events", "after"): ids["event_id"],
        ("list_job_checkpoints", "after"): ids["checkpoint_id"],
        ("list_rollouts", "after"): ids["rollout_id"],
        ("compare_metrics", "jobs"): ids["job_id"],
        ("list_api_keys", "after"): ids["key_id"],
    }
    positions = {
        (operation.name, name)
        for operation in OPERATIONS
        for name, schema in operation.queries
        if name in NAMES_AN_ID and schema.get("type") != "integer"
    }
    assert positions == set(foreign)  # a new position must be given its id here
    by_name = {operation.name: operation for operation in OPERATIONS}
    for (name, query), value in foreign.items():
        more = {"keys": "a"} if name == "compare_metrics" else {}
        answer = call(service.stranger, by_name[name], own, **{query: value}, **more)
        assert (name, answer.status_code) == (name, 404)


def strangers_job(service: Service) -> dict[str, Any]:
    content = b'{"prompt": "1+1=", "answer": "2"}\n' * 4
    upload = {"files": {"file": ("t.jsonl", content)}, "data": {"purpose": "fine-tune"}}
    file_id = service.stranger.post("/v1/files", **upload).json()["id"]  # type: ignore[arg-type]
    return service.job_body(training_file=file_id)


def test_every_operation_but_the_probes_wants_a_key_and_one_scope(service: Service, ids: dict[str, str]) -> None:
    anybody = TestClient(service.client.app)
    clients = {}
    with service.database.transaction() as session:
        for scope in SCOPES:
            key = keys.create_key(session, tenant="nobody", name=scope, scopes=[scope])  # type: ignore[list-item]
            clients[scope] = TestClient(service.client.app, headers={"Authorization": f"Bearer {key}"})
    for operation in OPERATIONS:
        refused = call(anybody, operation, ids).status_code == 401
        assert refused == (operation.name not in PUBLIC), operation
        if operation.name in PUBLIC:
            continue
        allowed = [scope for scope, client in clients.items() if call(client, operation, ids).status_code != 403]
        assert len(allowed) == (0 if operation.name == "create_stream_ticket" else 1), (operation, allowed)
        if operation.method == "GET":
            assert allowed != ["jobs:write"], operation


def test_no_hostile_id_is_an_error_of_ours(service: Service, ids: dict[str, str]) -> None:
    client = patient(service)
    for operation in with_ids():
        for name in operation.path_names:
            for value in HOSTILE:
                answer = call(client, operation, ids | {name: value})
                assert answer.status_code in (200, 400, 404, 405, 409, 422), (operation, value, answer.text)


def test_no_hostile_query_is_an_error_of_ours(service: Service, ids: dict[str, str]) -> None:
    client = patient(service)
    for operation in OPERATIONS:
        if operation.name in STREAMS or operation.method != "GET":
            continue
        for name, _ in operation.queries:
            for value in (*HOSTILE, "-1", "0", "1e999", "nan", str(2**31), str(2**63), str(2**70)):
                required = {"jobs": ids["job_id"], "keys": "a"} if operation.name == "compare_metrics" else {}
                answer = call(client, operation, ids, **(required | {name: value}))
                assert answer.status_code in (200, 400, 401, 404, 422), (operation, name, value, answer.text)


def patient(service: Service) -> TestClient:
    """Ours, with errors of the service as answers."""
    header = {"Authorization": service.client.headers["authorization"]}
    return TestClient(service.client.app, headers=header, raise_server_exceptions=False)


def test_a_key_is_found_in_no_answer_but_its_own(service: Service, ids: dict[str, str]) -> None:
    secret = service.client.headers["authorization"].removeprefix("Bearer ")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for operation in readable().values():
        text = call(service.client, operation, ids).text
        assert secret not in text, operation
        assert digest not in text, operation


@pytest.mark.parametrize("body", [{"name": "a\x00b"}, {"metadata": {"k": "\x00"}}, {"metadata": {"\x00": "v"}}])
def test_a_body_that_cannot_be_stored_is_refused(service: Service, body: dict[str, Any]) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    answer = patient(service).patch(path, json=body)
    assert answer.status_code == 422
    assert "NUL" in answer.json()["detail"] or "\\u0000" in answer.json()["detail"]
    assert service.client.get(path).json()["metadata"] == {}
