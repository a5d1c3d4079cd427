"""A POST sent twice acts once, and waits for no stranger."""

from __future__ import annotations

from api.store.idempotency import find_answer
from tests.api.conftest import Service

JOBS = "/v1/fine_tuning/jobs"


def test_who_comes_while_the_first_request_runs_is_told_when_to_come_again(service: Service) -> None:
    body = service.job_body()
    with service.database.transaction() as session:
        find_answer(session, "ours", "once", "the first one's")
        answer = service.client.post(JOBS, json=body, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["code"]) == (409, "key_in_use")
    assert answer.headers["Retry-After"] == "1"
    assert "x-should-retry" not in answer.headers
