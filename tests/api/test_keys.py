from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api import deps
from api.keyring import Keyring
from api.main import create_app
from api.store.keys import Caller
from tests.api.conftest import Service

KEYS = "/v1/api_keys"


def make_key(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.client.post(KEYS, json={"name": "ci", **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def client_of(service: Service, key: str) -> TestClient:
    return TestClient(service.client.app, headers={"Authorization": f"Bearer {key}"})


def test_a_key_is_shown_once_and_stored_as_a_hash_alone(service: Service) -> None:
    made = make_key(service)
    listed = service.client.get(KEYS).json()["data"][0]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].startswith(made["prefix"])
    assert len(made["prefix"]) == 12
    with service.database.transaction() as session:
        rows = session.execute(text("SELECT to_jsonb(api_keys)::text FROM api_keys")).scalars().all()
    assert not any(made["key"][12:40] in row for row in rows)
    assert client_of(service, made["key"]).get("/v1/files").status_code == 200


def test_a_request_for_a_key_that_is_repeated_makes_one_key_and_keeps_its_text_nowhere(service: Service) -> None:
    headers = {"Idempotency-Key": "once"}
    first = service.client.post(KEYS, json={"name": "ci"}, headers=headers)
    again = service.client.post(KEYS, json={"name": "ci"}, headers=headers)
    other = service.client.post(KEYS, json={"name": "cd"}, headers=headers)
    assert [first.status_code, again.status_code, other.status_code] == [201, 409, 422]
    assert again.json()["code"] == "key_shown_once"
    assert first.json()["id"] in again.json()["detail"]
    assert [key["name"] for key in service.client.get(KEYS).json()["data"]].count("ci") == 1
    with service.database.transaction() as session:
        kept = session.execute(text("SELECT to_jsonb(idempotency_keys)::text FROM idempotency_keys")).scalars().all()
    assert len(kept) == 1
    assert first.json()["key"][12:40] not in kept[0]


def refusal_within(client: Any, seconds: float) -> Any:
    """The first refusal of a client that is let in now; the last answer if there is none in time."""
    deadline = time.monotonic() + seconds
    while (answer := client.get("/v1/files")).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def test_a_revoked_key_is_refused_from_the_next_request_on(service: Service) -> None:
    made = make_key(service)
    client = client_of(service, made["key"])
    assert client.get("/v1/files").status_code == 200
    assert service.client.delete(f"{KEYS}/{made['id']}").json()["revoked_at"] is not None
    assert client.get("/v1/files").status_code == 401
    assert service.client.get(f"{KEYS}/{made['id']}").json()["revoked_at"] is not None


def test_a_key_that_has_ended_says_so(service: Service) -> None:
    made = make_key(service, expires_in_s=60)
    client = client_of(service, made["key"])
    assert client.get("/v1/files").status_code == 200
    with service.database.transaction() as session:
        session.execute(text("UPDATE api_keys SET expires_at = now() WHERE id = :id"), {"id": made["id"]})
    answer = refusal_within(client, 5.0)
    assert (answer.status_code, answer.json()["code"]) == (401, "expired_api_key")


def test_a_key_that_another_process_revoked_is_refused_within_five_seconds(service: Service, server: str) -> None:
    made = make_key(service)
    client = httpx2.Client(base_url=server, headers={"Authorization": f"Bearer {made['key']}"})
    assert client.get("/v1/files").status_code == 200
    assert service.client.delete(f"{KEYS}/{made['id']}").status_code == 200
    assert refusal_within(client, 5.0).status_code == 401
    client.close()


def test_a_key_lives_no_longer_than_it_was_given_however_lately_it_was_seen(service: Service) -> None:
    client = client_of(service, make_key(service, expires_in_s=1)["key"])
    assert client.get("/v1/files").status_code == 200
    time.sleep(1.05)
    assert client.get("/v1/files").status_code == 401


def test_a_mistyped_key_is_told_from_an_unknown_one(service: Service) -> None:
    key = make_key(service)["key"]
    swapped = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]
    assert client_of(service, swapped).get("/v1/files").json()["code"] == "mistyped_api_key"
    assert client_of(service, "stapo_other").get("/v1/files").json()["code"] == "invalid_api_key"


def test_nobody_revokes_the_key_in_hand(service: Service) -> None:
    own = service.client.get(KEYS).json()["data"][0]["id"]
    assert service.client.delete(f"{KEYS}/{own}").status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/files", "jobs:read"),
        ("GET", "/v1/models", "jobs:read"),
        ("GET", "/v1/fine_tuning/jobs", "jobs:read"),
        ("GET", "/v1/queue", "jobs:read"),
        ("GET", "/v1/usage", "jobs:read"),
        ("POST", "/v1/fine_tuning/jobs/ftjob-0/cancel", "jobs:write"),
        ("DELETE", "/v1/files/file-0", "jobs:write"),
        ("GET", "/v1/files/file-0/content", "artifacts:read"),
        ("GET", "/v1/fine_tuning/checkpoints/ftckpt-0/archive", "artifacts:read"),
        ("GET", KEYS, "admin"),
        ("DELETE", f"{KEYS}/key-0", "admin"),
        ("GET", "/metrics", "admin"),
    ],
)
def test_each_operation_wants_its_scope_and_no_other(service: Service, method: str, path: str, scope: str) -> None:
    others = [each for each in ("jobs:read", "jobs:write", "artifacts:read", "admin") if each != scope]
    refused = client_of(service, make_key(service, scopes=others)["key"]).request(method, path)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert scope in refused.json()["detail"]
    allowed = client_of(service, make_key(service, scopes=[scope])["key"]).request(method, path)
    assert allowed.status_code in (200, 404)


def test_a_ticket_opens_no_more_than_its_maker_may_read(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}/stream_ticket"
    reader = client_of(service, make_key(service, scopes=["jobs:read"])["key"])
    assert reader.post(path).status_code == 403
    assert service.client.post(path).status_code == 200


def ticket_of(client: TestClient, job_id: str) -> str:
    made: str = client.post(f"/v1/fine_tuning/jobs/{job_id}/stream_ticket").json()["ticket"]
    return made


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_ticket_is_no_key_however_lately_it_was_seen(service: Service, is_warm: bool) -> None:
    job = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    ticket = ticket_of(service.client, job.rpartition("/")[2])
    anybody = TestClient(service.client.app)
    if is_warm:
        assert anybody.get(job, params={"ticket": ticket}).status_code == 200
    as_a_key = client_of(service, ticket)
    for path in ("/v1/fine_tuning/jobs", "/v1/files", "/v1/usage", job):
        assert as_a_key.get(path).status_code == 401, path


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_key_is_no_ticket_however_lately_it_was_seen(service: Service, is_warm: bool) -> None:
    job = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    key = make_key(service)["key"]
    if is_warm:
        assert client_of(service, key).get(job).status_code == 200
    assert TestClient(service.client.app).get(job, params={"ticket": key}).status_code == 401


def test_a_ticket_ends_when_the_key_that_asked_for_it_is_revoked(service: Service) -> None:
    job = f"/v1/fine_tuning/jobs/{service.create_job()['id']}"
    made = make_key(service)
    tickets = [
        ticket_of(client, job.rpartition("/")[2]) for client in (client_of(service, made["key"]), service.client)
    ]
    anybody = TestClient(service.client.app)
    assert [anybody.get(job, params={"ticket": ticket}).status_code for ticket in tickets] == [200, 200]
    service.client.delete(f"{KEYS}/{made['id']}")
    assert [anybody.get(job, params={"ticket": ticket}).status_code for ticket in tickets] == [401, 200]


def test_a_ticket_lives_no_longer_than_the_key_that_asked_for_it(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}/stream_ticket"
    soon = client_of(service, make_key(service, expires_in_s=60)["key"]).post(path).json()["expires_at"]
    assert soon <= time.time() + 61
    assert service.client.post(path).json()["expires_at"] > time.time() + 3000


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_key(service)
    client, look_up = client_of(service, made["key"]), deps._look_up
    has_looked, may_go_on = threading.Event(), threading.Event()

    def look_up_slowly(database: Any, shown: Any) -> Caller:
        found = look_up(database, shown)
        if shown.secret == made["key"]:
            has_looked.set()
            assert may_go_on.wait(30.0)
        return found

    monkeypatch.setattr(deps, "_look_up", look_up_slowly)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(client.get, "/v1/files")
        assert has_looked.wait(30.0)
        assert service.client.delete(f"{KEYS}/{made['id']}").status_code == 200
        may_go_on.set()
        assert first.result().status_code == 200
    assert client.get("/v1/files").status_code == 401


def test_what_was_looked_up_before_a_revocation_is_kept_no_more_and_what_after_it_is() -> None:
    keyring, caller = Keyring(), Caller("ours", key_id="key-1")
    before = keyring.round
    keyring.forget()
    keyring.keep("key", "secret", caller, since=before)
    assert keyring.find("key", "secret") is None
    keyring.keep("key", "secret", caller, since=keyring.round)
    assert keyring.find("key", "secret") == caller
    assert keyring.find("ticket", "secret") is None


@pytest.mark.parametrize("body", [{}, {"name": "x", "scopes": ["root"]}, {"name": "x", "scopes": []}, {"name": ""}])
def test_a_bad_key_request_is_refused(service: Service, body: dict[str, Any]) -> None:
    assert service.client.post(KEYS, json=body).status_code == 422


def test_another_tenants_key_does_not_exist(service: Service) -> None:
    made = make_key(service)
    assert service.stranger.get(f"{KEYS}/{made['id']}").status_code == 404
    assert service.stranger.delete(f"{KEYS}/{made['id']}").status_code == 404
    assert made["id"] not in [key["id"] for key in service.stranger.get(KEYS).json()["data"]]


def test_requests_without_any_key_are_counted_like_those_with_a_wrong_one(service: Service) -> None:
    settings = service.settings.model_copy(update={"refused_limit": "2/hour"})
    with TestClient(create_app(settings)) as client:
        answers = [client.get("/v1/files", headers=headers).status_code for headers in ({}, {"Authorization": "x"}, {})]
        known = client.get("/v1/files", headers={"Authorization": service.client.headers["authorization"]})
    assert (answers, known.status_code) == ([401, 401, 429], 200)


def test_too_many_requests_are_told_when_to_come_back(service: Service) -> None:
    settings = service.settings.model_copy(update={"rate_limit": "3/minute", "refused_limit": "2/minute"})
    key = make_key(service)["key"]
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:
        answers = [client.get("/v1/files") for _ in range(4)]
        wrong = [client.get("/v1/files", headers={"Authorization": "Bearer x"}).status_code for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]
    # Three calls in a minute that has just begun: in the next they weigh 3 (1 - t), which is 2 at t = 1/3, after 80 s.
    assert 1 <= int(answers[3].headers["retry-after"]) <= 80
    assert answers[3].json()["error"]["type"] == "rate_limit_error"
    assert "x-should-retry" not in answers[3].headers
    assert wrong == [401, 401, 429]
