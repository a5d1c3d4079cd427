"""The client repeats what may be repeated, says what was refused, and reads streams without gaps or doubles."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.http import ApiError, ApiUnreachable, Client
from tests.client.service import Answer, Asked, in_turn, serve

PROBLEM = {
    "title": "Unprocessable content",
    "status": 422,
    "detail": "The request was refused.",
    "code": "invalid_value",
    "param": "method",
    "request_id": "req-7",
    "errors": [{"pointer": "/method/type", "detail": "must be 'reinforcement'"}],
}


def stream(*blocks: str) -> Answer:
    text = "".join(f"{block}\n\n" for block in blocks)
    return Answer(body=text.encode(), headers={"Content-Type": "text/event-stream"})


def metrics(seq: int, step: int) -> str:
    return f'event: metrics\nid: {seq}\ndata: {{"step": {step}}}'


def test_a_busy_service_is_asked_again() -> None:
    busy = Answer(status=503, body=b"{}")
    with serve(in_turn(busy, busy, Answer(body=b'{"id": "ftjob-1"}'))) as service, Client(service.url, "k") as client:
        assert client.get_job("ftjob-1")["id"] == "ftjob-1"
    assert len(service.asked) == 3


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_that_finds_nobody_for_a_moment_is_asked_again(status: int) -> None:
    away = Answer(status=status, body=b"<html>", headers={"Content-Type": "text/html"})
    with serve(in_turn(away, Answer(body=b'{"id": "ftjob-1"}'))) as service, Client(service.url, "k") as client:
        assert client.get_job("ftjob-1")["id"] == "ftjob-1"
    assert len(service.asked) == 2


@pytest.mark.parametrize(("told", "waited"), [("1", 1.0), ("0", 0.2)])
def test_who_is_over_a_rate_comes_back_when_told(told: str, waited: float) -> None:
    over = Answer(status=429, body=b'{"code": "rate_limit_exceeded"}', headers={"Retry-After": told})
    with serve(in_turn(over, Answer())) as service, Client(service.url, "k") as client:
        began = time.monotonic()
        client.list_models()
    assert time.monotonic() - began >= waited
    assert len(service.asked) == 2


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3600"}], ids=["quota", "hour"])
def test_a_quota_and_a_wait_beyond_patience_are_refusals(headers: dict[str, str]) -> None:
    over = Answer(status=429, body=b'{"code": "quota_exceeded"}', headers=headers)
    with serve(in_turn(over)) as service, Client(service.url, "k") as client, pytest.raises(ApiError, match="429"):
        client.list_models()
    assert len(service.asked) == 1


IN_USE = Answer(status=409, body=b'{"code": "key_in_use"}', headers={"Retry-After": "0"})


def test_a_submission_whose_first_sending_is_still_at_work_waits_for_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client.wire._RETRY_WAITS_S", (0.01, 0.01))
    answers = (Answer(cut_after=0), *[IN_USE] * 6, Answer(status=201, body=b'{"id": "ftjob-1"}'))
    with serve(in_turn(*answers)) as service, Client(service.url, "k") as client:
        assert client.create_job({"model": "m"})["id"] == "ftjob-1"
    assert len({asked.headers["idempotency-key"] for asked in service.asked}) == 1


def test_a_submission_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.http._ANSWER_S", 1.0)
    with serve(in_turn(IN_USE)) as service, Client(service.url, "k", timeout_s=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ApiError, match="409"):
            client.create_job({"model": "m"})
    assert time.monotonic() - began < 10.0


def test_a_submission_may_take_longer_than_a_question() -> None:
    def slowly(asked: Asked) -> Answer:
        time.sleep(1.0)
        return Answer(status=201, body=b'{"id": "ftjob-1"}')

    with serve(slowly) as service, Client(service.url, "k", timeout_s=0.3) as client:
        assert client.create_job({"model": "m"})["id"] == "ftjob-1"
        assert client.fork_job("ftjob-1", {})["id"] == "ftjob-1"
        with pytest.raises(ApiUnreachable) as silent:
            client.get_job("ftjob-1")
    assert silent.value.is_connected


def test_the_callers_own_key_goes_with_a_submission() -> None:
    with serve(in_turn(Answer(status=201))) as service, Client(service.url, "k") as client:
        client.create_job({}, idempotency_key="one")
        client.fork_job("ftjob-1", {}, idempotency_key="two")
    assert [asked.headers["idempotency-key"] for asked in service.asked] == ["one", "two"]


def test_an_upload_that_is_sent_again_is_whole_and_the_same(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "1+1="}\n')
    with serve(in_turn(Answer(status=503), Answer())) as service, Client(service.url, "k") as client:
        client.upload_file(tmp_path / "rows.jsonl")
    assert [b'{"prompt": "1+1="}\n' in asked.body for asked in service.asked] == [True, True]
    assert len({asked.headers["idempotency-key"] for asked in service.asked}) == 1


def test_an_action_is_not_repeated() -> None:
    busy = Answer(status=503, body=b'{"code": "unavailable"}')
    with serve(in_turn(busy)) as service, Client(service.url, "k") as client, pytest.raises(ApiError) as refused:
        client.cancel_job("ftjob-1")
    assert refused.value.code == "unavailable"
    assert len(service.asked) == 1


def test_a_repeated_submission_carries_the_same_idempotency_key() -> None:
    with serve(in_turn(Answer(status=503), Answer(status=201))) as service, Client(service.url, "k") as client:
        client.create_job({"model": "m"})
    first, second = (asked.headers["idempotency-key"] for asked in service.asked)
    assert first == second
    assert [json.loads(asked.body) for asked in service.asked] == [{"model": "m"}] * 2


def test_the_key_goes_with_every_call_and_the_address_may_end_in_v1() -> None:
    with serve(in_turn(Answer())) as service, Client(f"{service.url}/v1", "secret") as client:
        client.list_models()
    assert service.asked[0].headers["authorization"] == "Bearer secret"
    assert service.asked[0].path == "/v1/models"


def test_a_refusal_reads_well_and_keeps_its_parts() -> None:
    refusal = Answer(status=422, body=json.dumps(PROBLEM).encode())
    with serve(in_turn(refusal)) as service, Client(service.url, "k") as client, pytest.raises(ApiError) as refused:
        client.create_job({})
    error = refused.value
    assert (error.status, error.code, error.param, error.request_id) == (422, "invalid_value", "method", "req-7")
    assert str(error).splitlines() == [
        "The request was refused. (field: method)",
        "  /method/type: must be 'reinforcement'",
        "  [422 invalid_value, request req-7]",
    ]


def test_an_answer_that_is_no_json_is_still_a_sentence() -> None:
    page = Answer(status=502, body=b"<html>", headers={"Content-Type": "text/html"})
    with serve(in_turn(page)) as service, Client(service.url, "k") as client, pytest.raises(ApiError, match="502"):
        client.cancel_job("ftjob-1")


def test_nobody_there_names_the_address(free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    with Client(f"http://{address}", "k") as client, pytest.raises(ApiUnreachable, match=address) as away:
        client.ready()
    assert not away.value.is_connected


def test_a_service_that_is_not_ready_says_what_is_missing() -> None:
    body = b'{"status": "unavailable", "checks": {"worker": "no worker"}}'
    with serve(in_turn(Answer(status=503, body=body))) as service, Client(service.url, "k") as client:
        assert client.ready()["checks"] == {"worker": "no worker"}


def test_a_proxy_for_the_world_outside_is_not_used_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    with serve(in_turn(Answer(body=b'{"data": []}'))) as service, Client(service.url, "k") as client:
        assert client.list_files()["data"] == []


def test_query_parameters_that_are_not_set_are_not_sent() -> None:
    with serve(in_turn(Answer())) as service, Client(service.url, "k") as client:
        client.get_metrics("ftjob-1", keys=["a/b", "c"], from_step=3)
    assert service.asked[0].path == "/v1/fine_tuning/jobs/ftjob-1/metrics?keys=a%2Fb%2Cc&from_step=3"


def test_a_list_is_read_to_its_end_page_after_page() -> None:
    def page(first: int, last: int, *, has_more: bool) -> Answer:
        data = [{"id": f"file-{number}"} for number in range(first, last)]
        return Answer(body=json.dumps({"data": data, "has_more": has_more, "last_id": data[-1]["id"]}).encode())

    pages = page(0, 100, has_more=True), page(100, 103, has_more=False)
    with serve(in_turn(*pages)) as service, Client(service.url, "k") as client:
        assert [file["id"] for file in client.all_files()] == [f"file-{number}" for number in range(103)]
    assert [asked.path for asked in service.asked] == ["/v1/files?limit=100", "/v1/files?limit=100&after=file-99"]


def test_an_upload_sends_name_purpose_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "1+1="}\n')
    with serve(in_turn(Answer(body=b'{"id": "file-1"}'))) as service, Client(service.url, "k") as client:
        assert client.upload_file(tmp_path / "rows.jsonl")["id"] == "file-1"
    body = service.asked[0].body
    assert b'filename="rows.jsonl"' in body
    assert b"fine-tune" in body
    assert b'{"prompt": "1+1="}\n' in body


def test_a_broken_stream_goes_on_after_the_last_event_and_ends_with_end() -> None:
    first = stream(metrics(4, 1), ": keep-alive", metrics(5, 2))
    second = stream('event: state\ndata: {"state": "running"}', metrics(6, 3), "event: end\ndata: {}")
    with serve(in_turn(first, second)) as service, Client(service.url, "k") as client:
        events = list(client.stream_metrics("ftjob-1", after=3))
    assert [(event.event, event.id) for event in events] == [
        ("metrics", 4), ("metrics", 5), ("state", None), ("metrics", 6), ("end", None),
    ]  # fmt: skip
    assert [event.data.get("step") for event in events if event.event == "metrics"] == [1, 2, 3]
    assert [asked.headers.get("last-event-id") for asked in service.asked] == ["3", "5"]


def test_a_stream_of_a_job_that_has_ended_is_its_end() -> None:
    with serve(in_turn(Answer(status=204, body=b""))) as service, Client(service.url, "k") as client:
        assert [event.event for event in client.stream_metrics("ftjob-1")] == ["end"]


def test_a_reader_that_was_slow_reads_on_and_is_not_told_of_it() -> None:
    behind = stream(metrics(1, 1), 'event: resync\ndata: {"seq": 1}', metrics(2, 2), "event: end\ndata: {}")
    with serve(in_turn(behind)) as service, Client(service.url, "k") as client:
        assert [event.event for event in client.stream_metrics("ftjob-1")] == ["metrics", "metrics", "end"]
    assert len(service.asked) == 1


def test_a_stream_of_an_unknown_job_is_a_refusal() -> None:
    def refuse(asked: Asked) -> Answer:
        return Answer(status=404, body=b'{"code": "not_found", "detail": "No such job."}')

    with serve(refuse) as service, Client(service.url, "k") as client, pytest.raises(ApiError, match="No such job"):
        list(client.stream_metrics("ftjob-1"))


def piece(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return "data: " + json.dumps({"id": "cmpl-1", "choices": [choice]})


def test_a_streamed_answer_is_told_piece_by_piece_and_asked_for_once() -> None:
    told = stream(": the model is being loaded", piece("12"), piece("3"), piece("", "stop"), "data: [DONE]")
    with serve(in_turn(told)) as service, Client(service.url, "k") as client:
        chunks = list(client.stream_completion({"model": "m", "prompt": "1"}))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["12", "3", ""]
    (asked,) = service.asked
    assert (asked.method, asked.path) == ("POST", "/v1/completions")
    assert json.loads(asked.body) == {"model": "m", "prompt": "1", "stream": True}


def test_what_goes_wrong_in_a_streamed_answer_is_a_refusal() -> None:
    wrong = {"error": {"message": "The model has left.", "type": "server_error", "param": None, "code": "no_answer"}}
    told = stream(piece("12"), f"data: {json.dumps(wrong)}", "data: [DONE]")
    with serve(in_turn(told)) as service, Client(service.url, "k") as client:
        chunks = client.stream_completion({})
        assert next(chunks)["choices"][0]["text"] == "12"
        with pytest.raises(ApiError, match="The model has left") as refused:
            next(chunks)
    assert refused.value.code == "no_answer"


def test_a_model_that_is_not_there_is_refused_before_the_stream_begins() -> None:
    missing = Answer(status=404, body=b'{"code": "not_found", "detail": "No such model."}')
    with serve(in_turn(missing)) as service, Client(service.url, "k") as client, pytest.raises(ApiError) as refused:
        next(client.stream_completion({}))
    assert (refused.value.status, refused.value.message) == (404, "No such model.")


@pytest.mark.parametrize("cut_after", [None, 30])
def test_a_streamed_answer_that_breaks_off_is_never_taken_for_a_whole_one(cut_after: int | None) -> None:
    told = stream(piece("12"), piece("3"))
    broken = Answer(body=told.body, headers=told.headers, cut_after=cut_after)
    with serve(in_turn(broken)) as service, Client(service.url, "k") as client, pytest.raises(ApiUnreachable) as left:
        list(client.stream_completion({}))
    assert left.value.is_connected
    assert len(service.asked) == 1


def test_closing_a_streamed_answer_closes_its_connection() -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def speak_until_left() -> bytes:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20.0)
                connection.recv(65536)
                connection.sendall(f"{head}{piece('12')}\n\n".encode())
                while heard := connection.recv(65536):  # what is left of the request
                    assert b"stream" in heard
                return heard

        told = pool.submit(speak_until_left)
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "k") as client:
            chunks = client.stream_completion({})
            assert next(chunks)["choices"][0]["text"] == "12"
            assert not told.done()
            chunks.close()
            assert told.result(timeout=20.0) == b""
