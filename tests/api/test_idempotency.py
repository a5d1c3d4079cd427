"""A POST sent twice acts once, waits for no stranger, and holds nothing while it reads files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from api.store.idempotency import Once
from tests.api.conftest import ROWS, Service

JOBS = "/v1/fine_tuning/jobs"
ONCE = {"Idempotency-Key": "once"}


def age_answers(service: Service, *, hours: int) -> None:
    with service.database.transaction() as session:
        query = text("UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => :hours)")
        session.execute(query, {"hours": hours})


def test_who_comes_while_the_first_request_runs_is_told_when_to_come_again(service: Service) -> None:
    body = service.job_body()
    with service.database.transaction() as session:
        Once.of("ours", "once", "the first one's").find_answer(session)
        answer = service.client.post(JOBS, json=body, headers=ONCE)
    assert (answer.status_code, answer.json()["code"]) == (409, "key_in_use")
    assert answer.headers["Retry-After"] == "1"
    assert "x-should-retry" not in answer.headers


def test_no_request_waits_for_the_old_answers_that_another_forgets(service: Service) -> None:
    service.upload(ROWS, **{"Idempotency-Key": "old"})
    age_answers(service, hours=25)
    body = service.job_body()
    with ThreadPoolExecutor(1) as pool, service.database.transaction() as session:
        session.execute(text("DELETE FROM idempotency_keys"))
        asked = pool.submit(service.client.post, JOBS, json=body, headers=ONCE)
        try:
            assert asked.result(timeout=10).status_code == 201
        finally:
            session.rollback()


def test_an_answer_is_forgotten_after_a_day_and_its_key_serves_again(service: Service) -> None:
    body = service.job_body()
    service.upload(ROWS, **{"Idempotency-Key": "old"})
    first = service.client.post(JOBS, json=body, headers=ONCE).json()
    age_answers(service, hours=23)
    assert service.client.post(JOBS, json=body, headers=ONCE).json() == first
    age_answers(service, hours=2)
    second = service.client.post(JOBS, json=body, headers=ONCE).json()
    assert second["id"] != first["id"]
    assert service.client.post(JOBS, json=body, headers=ONCE).json() == second
    with service.database.transaction() as session:
        assert session.scalars(text("SELECT key FROM idempotency_keys")).all() == ["once"]


def test_a_stored_answer_says_where_the_job_is_as_the_first_one_did(service: Service) -> None:
    body, parent = service.job_body(), service.create_job()
    service.add_checkpoint(parent["id"], 2)
    for path, content, key in ((JOBS, body, "a"), (f"{JOBS}/{parent['id']}/fork", {}, "b")):
        first, again = (service.client.post(path, json=content, headers={"Idempotency-Key": key}) for _ in range(2))
        assert again.json() == first.json()
        assert again.headers["Location"] == first.headers["Location"] == f"{JOBS}/{first.json()['id']}"
