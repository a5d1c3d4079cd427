"""A judge behind a real socket that answers well, badly, late, or from elsewhere."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config import ScoreModelGrader
from stapo_core.graders import build_grader, item_fields
from stapo_core.graders.child import Unjudgeable
from stapo_core.graders.judges import JUDGES_FILE, JudgesError, find_judge
from stapo_core.graders.score import Sample, Score
from stapo_core.graders.score_model_child import read_score
from tests.stapo_core.graders.endpoint import KEY, Answer, Endpoint, Handler, completion, reply, saying, serve

INPUT = [
    {"role": "system", "content": "Judge the answer to {{item.question}}"},
    {"role": "user", "content": [{"type": "input_text", "text": "It is:"}, {"text": "{{sample.output_text}}"}]},
]
ITEM = {"question": "1+1"}


def grader(**changes: Any) -> ScoreModelGrader:
    return ScoreModelGrader.model_validate(
        {"type": "score_model", "model": "judge", "input": INPUT, "timeout_s": 20.0} | changes
    )


def judge(config: ScoreModelGrader, *texts: str) -> list[Score]:
    pool = build_grader(config)
    try:
        return pool.judge([Sample(ITEM, text) for text in texts]).total
    finally:
        pool.close()


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts an endpoint onto the operator's list."""

    def put(endpoint: Endpoint, **changes: Any) -> None:
        monkeypatch.setenv(JUDGES_FILE, str(endpoint.list_judges(tmp_path, **changes)))

    return put


def test_the_score_is_the_judges_and_it_is_asked_as_the_dialect_asks(listed: Any) -> None:
    with serve(saying('{"steps": [], "result": 0.25}')) as endpoint:
        listed(endpoint)
        sampling = {"temperature": 0.0, "seed": 3, "top_p": 0.5, "max_completions_tokens": 9, "reasoning_effort": "low"}
        assert judge(grader(sampling_params=sampling), '2 "quoted" {{item.question}}') == [Score(0.25)]
    (body,) = endpoint.bodies
    assert endpoint.keys == [f"Bearer {KEY}"]
    assert (body["path"], body["model"], body["max_completion_tokens"]) == ("/v1/chat/completions", "large", 9)
    assert (body["temperature"], body["seed"], body["top_p"], body["reasoning_effort"]) == (0.0, 3, 0.5, "low")
    assert body["messages"] == [
        {"role": "system", "content": "Judge the answer to 1+1"},
        {"role": "user", "content": 'It is:\n2 "quoted" {{item.question}}'},
    ]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["steps", "result"]


def test_equal_samples_are_asked_once_and_each_gets_its_score_in_order(listed: Any) -> None:
    def answer(handler: Handler, number: int) -> None:
        said = endpoint.bodies[number]["messages"][1]["content"].split("\n")[1]
        reply(handler, 200, completion(json.dumps({"result": float(said)})))

    with serve(answer) as endpoint:
        listed(endpoint)
        scores = judge(grader(range=[0.0, 9.0]), "3", "1", "3", "2")
    assert [score.value for score in scores] == [3.0, 1.0, 3.0, 2.0]
    assert len(endpoint.bodies) == 3


def test_an_endpoint_that_takes_no_schema_is_asked_for_json_in_words(listed: Any) -> None:
    with serve(saying('I think {"a": 1} so {"score": 7}.')) as endpoint:
        listed(endpoint, response_format="none", api_key_file=None)
        assert judge(grader(range=[0.0, 10.0]), "2") == [Score(7.0)]
    assert "response_format" not in endpoint.bodies[0]
    assert "from 0 to 10" in endpoint.bodies[0]["messages"][0]["content"]
    assert endpoint.keys == [""]


def test_a_busy_or_failing_endpoint_is_asked_again_after_the_wait_it_names(listed: Any) -> None:
    asked_at: list[float] = []

    def answer(handler: Handler, number: int) -> None:
        asked_at.append(time.monotonic())
        if number == 0:
            reply(handler, 429, b"slow down", retry_after="1")
        elif number == 1:
            reply(handler, 503, b"")
        else:
            reply(handler, 200, completion('{"result": 1}'))

    with serve(answer) as endpoint:
        listed(endpoint)
        assert judge(grader(), "2") == [Score(1.0)]
    assert len(asked_at) == 3
    assert asked_at[1] - asked_at[0] >= 0.95


def drop(handler: Handler, _: int) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def drip(handler: Handler, _: int) -> None:
    """Sends a byte now and then, so that no single wait is long."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def flood(handler: Handler, _: int) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" " * 2**20)


def wait(handler: Handler, _: int) -> None:
    time.sleep(30.0)


def status(code: int, **headers: str) -> Answer:
    return lambda handler, _: reply(handler, code, b'{"choices": []}', **headers)


BAD: list[tuple[str, Answer, str]] = [
    ("no number", saying('{"result": "very good"}'), "score_unreadable"),
    ("a truth value", saying('{"result": true}'), "score_unreadable"),
    ("not a number", saying('{"result": NaN}'), "score_unreadable"),
    ("prose", saying("I would say 0.5"), "score_unreadable"),
    ("braces", saying("{" * 40_000), "score_unreadable"),
    ("a nested object", saying('{"a":' * 9_000), "score_unreadable"),
    ("too high", saying('{"result": 1.5}'), "score_out_of_range"),
    ("a huge number", saying('{"result": 1e999}'), "score_unreadable"),
    ("a refusal", saying(None, refusal="I cannot judge this"), "refusal"),
    ("no text", saying(None), "reply_unreadable"),
    ("no completion", lambda handler, _: reply(handler, 200, b"[1, 2]"), "reply_unreadable"),
    ("no JSON", lambda handler, _: reply(handler, 200, b"\xff\xfe<html>"), "reply_unreadable"),
    ("no gzip", lambda handler, _: reply(handler, 200, b"plain", content_encoding="gzip"), "reply_unreadable"),
    ("a wrong key", status(401), "refused"),
    ("a redirect", status(307, location="http://127.0.0.1:1/v1/chat/completions"), "redirected"),
    ("a flood", flood, "reply_too_long"),
]
LATE: list[tuple[str, Answer, str]] = [
    ("silence", wait, "timeout"),
    ("drops", drip, "timeout"),
    ("429 for ever", status(429, retry_after="1"), "rate_limited"),
    ("429 for an hour", status(429, retry_after="3600"), "rate_limited"),
    ("500 for ever", status(500), "server_error"),
    ("a cut line", drop, "unreachable"),
]


def each_in_its_way(endpoint: Endpoint, cases: list[tuple[str, Answer, str]]) -> Answer:
    """An endpoint that answers each text of a case as the case does, and every other with a score of 1."""
    ways = {name: answer for name, answer, _ in cases}

    def answer(handler: Handler, number: int) -> None:
        said = endpoint.bodies[number]["messages"][1]["content"].split("\n")[1]
        ways.get(said, saying('{"result": 1}'))(handler, number)

    return answer


def test_what_is_no_score_is_an_error_of_its_kind_and_not_asked_for_again(listed: Any) -> None:
    with serve() as endpoint:
        endpoint.answer = each_in_its_way(endpoint, BAD)
        listed(endpoint)
        scores = judge(grader(), *(name for name, _, _ in BAD), "2")
    assert scores == [*(Score(0.0, kind) for _, _, kind in BAD), Score(1.0)]
    assert len(endpoint.bodies) == len(BAD) + 1


def test_a_judge_that_does_not_come_to_a_score_costs_its_deadline_and_says_why(listed: Any) -> None:
    with serve() as endpoint:
        endpoint.answer = each_in_its_way(endpoint, LATE)
        listed(endpoint, max_parallel=len(LATE))
        started = time.monotonic()
        scores = judge(grader(timeout_s=1.5), *(name for name, _, _ in LATE), "2")
        assert time.monotonic() - started < 25.0  # a second and a half, and what a busy machine adds
    assert scores == [*(Score(0.0, kind) for _, _, kind in LATE), Score(1.0)]


def test_an_address_where_nobody_listens_is_told(listed: Any) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, and nobody listens
        listed(Endpoint(f"http://127.0.0.1:{held.getsockname()[1]}", wait))
        assert judge(grader(timeout_s=1.0), "2") == [Score(0.0, "unreachable")]


def test_no_more_requests_are_under_way_than_the_operator_allows(listed: Any) -> None:
    under_way, most, lock = [0], [0], threading.Lock()

    def answer(handler: Handler, _: int) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        with lock:
            under_way[0] -= 1
        reply(handler, 200, completion('{"result": 1}'))

    with serve(answer) as endpoint:
        listed(endpoint, max_parallel=3)
        assert judge(grader(), *map(str, range(12))) == [Score(1.0)] * 12
    assert 1 < most[0] <= 3


def test_the_key_is_in_no_environment_argument_or_config_but_only_on_the_wire(listed: Any) -> None:
    seen: list[bytes] = []

    def answer(handler: Handler, _: int) -> None:
        for process in [path.parent for path in Path("/proc").glob("[0-9]*/stat") if _parent_of(path) == os.getpid()]:
            seen.append((process / "environ").read_bytes() + (process / "cmdline").read_bytes())
        reply(handler, 200, completion('{"result": 1}'))

    with serve(answer) as endpoint:
        listed(endpoint)
        config = grader()
        assert judge(config, "2") == [Score(1.0)]
        assert KEY not in find_judge("judge").model_dump_json() + config.model_dump_json()
    assert any(b"score_model_child" in each for each in seen)
    assert not any(KEY.encode() in each for each in seen)


def _parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_without_a_list_no_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JUDGES_FILE, raising=False)
    with pytest.raises(JudgesError, match="no model 'judge' may be asked for scores here; there are: none"):
        build_grader(grader())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", "refused at the whole"),
        ('{"judge": {}}', "judge.base_url"),
        ('{"judge": {"base_url": "file:///etc/passwd"}}', "judge.base_url"),
        ('{"judge": {"base_url": "http://user:secret@host/v1"}}', "judge.base_url"),
        ('{"judge": {"base_url": "http://host/v1?key=1"}}', "judge.base_url"),
        ('{"judge": {"base_url": "http://host/v1", "key": "sk-1"}}', "judge.key"),
        ('{"other": {"base_url": "http://host/v1"}}', "there are: other"),
    ],
)
def test_a_list_that_cannot_be_used_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    (tmp_path / "judges.json").write_text(content)
    monkeypatch.setenv(JUDGES_FILE, str(tmp_path / "judges.json"))
    with pytest.raises(JudgesError, match=message) as refused:
        build_grader(grader())
    assert "secret" not in str(refused.value)


def test_the_fields_of_all_messages_are_read() -> None:
    assert item_fields(grader()) == {"question"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "http://169.254.169.254/"}, "base_url"),
        ({"input": [{"role": "user", "content": "{{item.question}}"}]}, "would not see the response"),
        ({"input": [{"role": "user", "content": {"type": "input_image", "image_url": "http://x"}}]}, "input"),
        ({"range": [1.0, 0.0]}, r"range \[1, 0\] is empty"),
        ({"range": [0.0]}, "range"),
        ({"sampling_params": {"temperature": 3.0}}, "temperature"),
    ],
)
def test_a_spec_that_cannot_work_or_names_an_address_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        grader(**changes)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"steps": [{"description": "a", "conclusion": "b"}], "result": 0.5}', 0.5),
        ('{"score": 1}', 1.0),
        ('```json\n{"result": 0.75}\n```', 0.75),
        ('First {"result": 0.1}, on reflection {"result": 0.9}', 0.9),
        ('{"result": 0, "note": "{\\"result\\": 1}"}', 0.0),
        ('<think>{"result": </think> {"result": 1.0} done', 1.0),
    ],
)
def test_the_last_object_of_an_answer_holds_the_score(answer: str, score: float) -> None:
    assert read_score(answer, 0.0, 1.0) == score


def test_a_score_on_the_bounds_counts_and_one_beyond_does_not() -> None:
    assert [read_score(f'{{"result": {number}}}', -1.0, 5.0) for number in (-1, 5)] == [-1.0, 5.0]
    with pytest.raises(Unjudgeable, match="score_out_of_range"):
        read_score('{"result": 5.01}', -1.0, 5.0)
