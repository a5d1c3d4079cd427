from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.api.conftest import Service

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "param", "request_id", "errors", "error"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nowhere", 404),
        ("PUT", "/v1/files", 405),
        ("GET", "/v1/files/file-0", 404),
        ("GET", "/v1/files?limit=0", 422),
        ("GET", "/v1/files?after=file-0", 404),
        ("POST", "/v1/fine_tuning/jobs", 422),
    ],
)
def test_every_refusal_is_a_problem_with_the_dialects_member(
    service: Service, method: str, path: str, status: int
) -> None:
    answer = service.client.request(method, path)
    problem = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == MEMBERS
    assert problem["status"] == status
    assert problem["error"]["message"] == problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] == "false"


def test_a_path_that_is_none_says_where_all_of_them_stand(service: Service) -> None:
    told = service.client.get("/v1/nowhere").json()["detail"]

    assert "GET /openapi.json" in told
    assert "/v1/files" in service.client.get("/openapi.json").json()["paths"]


def test_a_body_that_is_no_json_says_where(service: Service) -> None:
    headers = {"Content-Type": "application/json"}
    answer = service.client.post("/v1/fine_tuning/jobs", content=b'{"model": }', headers=headers)
    assert answer.status_code == 400
    assert "character 10" in answer.json()["detail"]


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(2**30)}
    answer = service.client.post("/v1/fine_tuning/jobs", content=b"{}", headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("header", [None, "Bearer stapo_wrong", "Basic abc"])
def test_without_a_good_key_nothing_is_told(service: Service, header: str | None) -> None:
    anybody = TestClient(service.client.app, headers={"Authorization": header} if header else {})
    for path in ("/v1/files", "/v1/models", "/v1/fine_tuning/jobs", "/v1/fine_tuning/checkpoints/ftckpt-0"):
        answer = anybody.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "authentication_error"


def test_a_request_id_is_echoed_when_it_is_one(service: Service) -> None:
    assert service.client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = service.client.get("/healthz", headers={"X-Request-Id": "a b\x7f"}).headers["x-request-id"]
    assert made.startswith("req-")


def test_a_database_that_is_away_is_a_503_that_says_so(
    home: Path, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        home=home, database_url="postgresql+psycopg://nobody@/none?host=/nowhere", broker_url=valkey_url
    )
    with TestClient(create_app(settings), headers={"Authorization": "Bearer x"}) as client:
        answer = client.get("/v1/files")
        ready = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
    assert answer.headers["retry-after"] == "5"
    assert ready.status_code == 503
    assert ready.json()["checks"]["broker"] == "ok"
    assert ready.json()["checks"]["database"] == "does not answer"
    assert "nowhere" not in ready.text
    assert "nowhere" in capsys.readouterr().out


def test_a_bug_of_ours_is_an_answer_like_any_other(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr("api.store.files.list_files", fail)
    origin = "http://dash:8501"
    settings = service.settings.model_copy(update={"cors_origins": origin})
    key = service.client.headers["authorization"]
    with TestClient(create_app(settings), headers={"Authorization": key}, raise_server_exceptions=False) as client:
        answer = client.get("/v1/files", headers={"X-Request-Id": "mine-1", "Origin": origin})
        counted = client.get("/metrics").text
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-1"
    assert answer.headers["access-control-allow-origin"] == origin
    assert "secret" not in answer.text
    assert 'stapo_http_requests_total{method="GET",route="/v1/files",status="500"} 1.0' in counted
    assert [(record.name, "mine-1" in record.message) for record in caplog.records if record.exc_info] == [
        ("uvicorn.error", True)
    ]


def test_the_openapi_document_gives_each_operation_an_id_of_its_own(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert document["openapi"].startswith("3.1")
    assert len(ids) == len(set(ids)) > 15
