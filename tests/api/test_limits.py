"""What one request and one tenant may take: bodies, forms, streams; and what a page of another origin may not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.api.conftest import Service
from tests.api.streams import headers_of


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_streams": 2})


def test_a_body_without_a_length_is_cut_off_at_the_limit(service: Service, server: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"model": "'
        for _ in range(64):
            yield b"x" * 2**17

    headers = headers_of(service) | {"Content-Type": "application/json"}
    answer = httpx2.post(f"{server}/v1/fine_tuning/jobs", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/fine_tuning/jobs", "/v1/files/", "/v1/nowhere"])
def test_only_an_upload_may_be_large_whatever_a_body_calls_itself(service: Service, path: str) -> None:
    settings = service.settings.model_copy(update={"max_upload_bytes": 64 * 2**20})
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(5 * 2**20)}
    with TestClient(create_app(settings), headers=headers_of(service)) as client:
        assert client.post(path, content=b"--x--", headers=headers).status_code == 413
        assert client.post("/v1/files", content=b"--x--", headers=headers).status_code == 422


@pytest.mark.parametrize("key", [None, "Bearer stapo_wrong"])
def test_an_upload_without_a_good_key_is_refused_before_its_body_is_sent(server: str, key: str | None) -> None:
    lines = ["POST /v1/files HTTP/1.1", "Host: stapo", "Content-Type: multipart/form-data; boundary=x"]
    lines += ["Content-Length: 90000", *([f"Authorization: {key}"] if key else []), "", ""]
    port = int(server.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_an_upload_is_counted_as_one_request(service: Service) -> None:
    settings = service.settings.model_copy(update={"rate_limit": "5/minute"})
    with TestClient(create_app(settings), headers=headers_of(service)) as client:
        answer = client.post(
            "/v1/files", files={"file": ("t.jsonl", b'{"prompt": "a"}')}, data={"purpose": "fine-tune"}
        )
    assert (answer.status_code, answer.headers["ratelimit-remaining"]) == (200, "4")


def test_a_form_of_very_many_fields_is_refused(service: Service) -> None:
    fields = {f"field-{number}": "x" for number in range(1001)}
    answer = service.client.post("/v1/files", files={"file": ("t.jsonl", b"{}")}, data=fields)
    assert answer.status_code == 400
    assert "1000" in answer.json()["detail"]


def test_a_tenant_holds_so_many_streams_open_and_may_open_another_when_one_is_closed(
    service: Service, server: str
) -> None:
    path = f"{server}/v1/fine_tuning/jobs/{service.create_job()['id']}"
    with httpx2.Client(headers=headers_of(service), timeout=10.0) as client:
        first = open_stream(client, f"{path}/metrics/stream")
        second = open_stream(client, f"{path}/logs/stream")
        refused = client.get(f"{path}/events/stream")
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        first.close()
        third = wait_for_room(client, f"{path}/events/stream")
        for each in (second, third):
            each.close()


def test_of_streams_that_are_opened_at_once_no_more_open_than_the_tenant_may_hold(
    service: Service, server: str
) -> None:
    url = f"{server}/v1/fine_tuning/jobs/{service.create_job()['id']}/metrics/stream"
    with httpx2.Client(headers=headers_of(service), timeout=30.0) as client, ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(client.send, client.build_request("GET", url), stream=True) for _ in range(8)]
        answers = [each.result() for each in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 6
        for answer in answers:
            answer.close()


def open_stream(client: httpx2.Client, url: str) -> httpx2.Response:
    """A stream whose first bytes have come, so that it is counted."""
    answer = client.send(client.build_request("GET", url), stream=True)
    assert answer.status_code == 200
    pieces = answer.iter_raw()
    next(pieces)
    answer.extensions["pieces"] = pieces  # an iterator that is dropped closes its stream
    return answer


def wait_for_room(client: httpx2.Client, url: str) -> httpx2.Response:
    """The stream, once the server has noticed that another was closed."""
    for _ in range(200):
        answer = client.send(client.build_request("GET", url), stream=True)
        if answer.status_code == 200:
            return answer
        answer.close()
    raise AssertionError("no room was made")


def test_no_page_of_another_origin_may_read_where_none_is_listed(service: Service) -> None:
    answer = service.client.get("/healthz", headers={"Origin": "http://dash:8501"})
    assert "access-control-allow-origin" not in answer.headers
    asked = {"Origin": "http://dash:8501", "Access-Control-Request-Method": "GET"}
    assert service.client.options("/v1/files", headers=asked).status_code == 405
