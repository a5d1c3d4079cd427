"""Answers that are drawn at once: one model's failure is its own, and what is not wanted is drawn no further."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from client.http import ApiError, ApiUnreachable
from dashboard import drawing, service
from dashboard.drawing import Drawing
from dashboard.playground import Question
from tests.client.service import Answer, Asked, serve

QUESTION = Question("1+1=", 1.0, 16, 1, 0, wants_probabilities=False)


@pytest.fixture(autouse=True)
def api_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Points the dashboard at an address of the test's own."""

    def point(url: str) -> None:
        monkeypatch.setenv("STAPO_API_URL", url)
        monkeypatch.setenv("STAPO_API_KEY", "k")
        service.disconnect()

    yield point
    service.disconnect()


def event(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_models_failure_is_told_in_its_place_while_the_others_go_on(api_at: Callable[[str], None]) -> None:
    def reply(asked: Asked) -> Answer:
        told = {"whole": event("12") + event("", "stop") + "data: [DONE]\n\n", "broken": event("1")}
        model = json.loads(asked.body)["model"]
        if model not in told:
            return Answer(status=404, body=b'{"code": "not_found", "detail": "No such model."}')
        return Answer(body=told[model].encode(), headers={"Content-Type": "text/event-stream"})

    with serve(reply) as api:
        api_at(api.url)
        asked = Drawing(QUESTION, ["gone", "whole", "broken"])
        wait_until(lambda: not asked.look())

    gone, whole, broken = asked.replies.values()
    assert isinstance(gone.error, ApiError)
    assert (gone.error.code, gone.has_begun) == ("not_found", False)
    assert whole.error is None
    assert whole.choices == [{"index": 0, "text": "12", "finish_reason": "stop", "logprobs": None}]
    assert isinstance(broken.error, ApiUnreachable)
    assert broken.choices == [{"index": 0, "text": "1", "finish_reason": None, "logprobs": None}]


@contextmanager
def endless_api() -> Iterator[tuple[str, Future[None]]]:
    """An API whose one answer has no end; the future is done when the reader has left."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def speak_until_left() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                text = head
                try:
                    while True:
                        connection.sendall((text + event("1")).encode())
                        text = ""
                        time.sleep(0.01)
                except OSError:
                    return

        yield f"http://127.0.0.1:{listener.getsockname()[1]}", pool.submit(speak_until_left)


def test_a_drawing_that_is_stopped_closes_its_streams_and_keeps_what_it_has(api_at: Callable[[str], None]) -> None:
    with endless_api() as (url, left):
        api_at(url)
        asked = Drawing(QUESTION, ["m"])
        wait_until(lambda: len(asked.replies["m"].choices[0]["text"]) > 3)
        assert asked.look()
        assert not left.done()

        asked.stop()

        assert not asked.look()
        left.result(timeout=20.0)
    wait_until(lambda: asked.replies["m"].is_over)
    assert asked.replies["m"].error is None
    assert set(asked.replies["m"].choices[0]["text"]) == {"1"}


def test_a_drawing_at_which_nobody_looks_any_more_closes_its_streams(
    api_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "UNSEEN_S", 2.0)
    with endless_api() as (url, left):
        api_at(url)
        asked = Drawing(QUESTION, ["m"])
        while asked.age_s < 3.0:
            assert asked.look()
            time.sleep(0.05)
        assert not left.done()

        left.result(timeout=20.0)
    wait_until(lambda: not asked.look())
    assert asked.replies["m"].error is None
