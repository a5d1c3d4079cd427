"""What JSON texts can say and no JSON can be made of is refused by its place, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Service

JOBS = "/v1/fine_tuning/jobs"
JSON = {"Content-Type": "application/json"}
SCHEMA = {"type": "json_schema", "schema": {"enum": ["a", "VALUE"]}}


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b"1e400", rb'"a\ud800"', b'"\xed\xa0\x80"', rb'{"\udfff": 1}'])
def test_it_is_refused_inside_what_takes_anything(service: Service, value: bytes) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    graded = service.job_body(reinforcement={"grader": SCHEMA})
    in_schema = "/method/reinforcement/grader/schema/enum/1"
    cases: list[tuple[str, Any, str]] = [
        (f"{JOBS}/{parent['id']}/fork", {"config": {"~x/": "VALUE"}}, "/config/~0x~1"),
        (f"{JOBS}/{parent['id']}/fork", {"grader": SCHEMA}, "/grader/schema/enum/1"),
        (JOBS, graded, in_schema),
        (f"{JOBS}?dry_run=true", graded, in_schema),
        ("/v1/fine_tuning/alpha/graders/validate", {"grader": SCHEMA}, "/grader/schema/enum/1"),
    ]
    for path, body, pointer in cases:
        content = json.dumps(body).encode().replace(b'"VALUE"', value)
        answer = service.client.post(path, content=content, headers=JSON)
        problem = answer.json()
        assert answer.status_code == 422, path
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
        assert problem["detail"].startswith(f"{pointer}: ")
        assert problem["param"] == pointer[1:].replace("/", ".")


def test_whole_characters_beyond_the_first_plane_pass(service: Service) -> None:
    body = json.dumps(service.job_body(name="\U0001f600"))  # written as two escapes
    assert "\\ud83d" in body
    assert service.client.post(JOBS, content=body, headers=JSON).json()["name"] == "\U0001f600"


def test_a_name_that_comes_twice_in_an_address_is_refused_whatever_it_says_last(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{service.create_job()['id']}/events/stream"
    answer = service.client.get(f"{path}?after=nonsense&after=3")
    assert (answer.status_code, answer.json()["param"]) == (422, "after")
    assert "2 times" in answer.json()["detail"]
