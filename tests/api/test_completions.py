"""Prompts answered by a real model in a process of its own, asked over the wire and by the official client."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from openai import OpenAI
from sqlalchemy import func, select

from api.asking import _Told
from api.errors import Unavailable
from api.store import artifacts, completions, leases
from api.store.database import Outage, Session
from api.store.tables import Completion
from tests.api.conftest import Service
from tests.stapo_core.tiny import make_model, make_tokenizer
from worker.answering import Answerer, WarmModels
from worker.replies import ReplyError, WarmModel

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "1" * 120}]}
ASK: dict[str, Any] = {"model": "tiny", "prompt": "1+1=", "max_tokens": 6, "seed": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("answerer")
def test_without_a_limit_an_answer_takes_what_the_models_context_leaves(service: Service) -> None:
    unlimited = {name: value for name, value in ASK.items() if name != "max_tokens"} | {"prompt": "1" * 120, "n": 16}
    for path, body in (("completions", unlimited), ("chat/completions", unlimited | CHAT)):
        body = {name: value for name, value in body.items() if path == "completions" or name != "prompt"}
        answer = service.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] <= 16 * 8
        assert "length" in {choice["finish_reason"] for choice in answer.json()["choices"]}


@pytest.mark.usefixtures("answerer")
def test_a_model_is_asked_and_the_same_seed_gives_the_same_answer(service: Service) -> None:
    first = service.client.post("/v1/completions", json=ASK | {"n": 3})
    assert first.status_code == 200, first.text
    answer = first.json()
    again = service.client.post("/v1/completions", json=ASK | {"n": 3}).json()
    other = service.client.post("/v1/completions", json=ASK | {"n": 3, "seed": 4}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert again["choices"] == answer["choices"] != other["choices"]
    assert answer["usage"]["prompt_tokens"] == 4  # one token per character
    assert 3 <= answer["usage"]["completion_tokens"] <= 18
    long = service.client.post("/v1/completions", json=ASK | {"prompt": "1" * 127})
    assert (long.status_code, long.json()["code"]) == (422, "no_answer")
    assert "127 tokens and the model's context is 128; lower max_tokens from 6 to 1" in long.json()["detail"]
    beyond = service.client.post("/v1/completions", json=ASK | {"prompt": "1" * 128})
    assert "128 tokens and the model's context is 128; shorten it" in beyond.json()["detail"]
    assert service.client.post("/v1/completions", json=ASK).status_code == 200  # a refusal costs the model nothing


@pytest.mark.usefixtures("answerer")
def test_a_warm_model_answers_many_at_once(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool:
        asks = [ASK | {"seed": seed, "temperature": 0} for seed in range(8)]
        answers = list(pool.map(lambda ask: service.client.post("/v1/completions", json=ask), asks))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1  # the likeliest text is one text
    assert len({answer.json()["id"] for answer in answers}) == 8


@pytest.mark.usefixtures("answerer")
def test_a_cold_checkpoint_is_waited_for_in_an_open_stream_and_the_official_client_asks_it(
    service: Service, server: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.completions.OPEN_S", 0.2)
    monkeypatch.setattr("api.routes.completions.COMMENT_S", 0.2)
    job = service.create_job()
    service.add_checkpoint(job["id"], 2, final=True)
    folder = artifacts.folder_path(service.settings.artifacts_dir, job["id"], 2)
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    name = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["fine_tuned_model"]
    key = service.client.headers["authorization"].removeprefix("Bearer ")
    with (
        httpx2.Client(base_url=server, headers=service.client.headers, timeout=60.0) as browser,
        browser.stream("POST", "/v1/completions", json=ASK | {"model": name, "stream": True}) as cold,
    ):
        lines = [line for line in cold.iter_lines() if line]
    assert (cold.status_code, lines[-1]) == (200, "data: [DONE]")
    assert ": the model is being loaded" in lines
    messages: Any = [{"role": "user", "content": "1+1="}]
    with OpenAI(base_url=f"{server}/v1", api_key=key) as client:
        answer = client.chat.completions.create(model=name, messages=messages, max_tokens=6, seed=3)
        chunks = list(client.chat.completions.create(model=name, messages=messages, max_tokens=6, seed=3, stream=True))
        plain = client.completions.create(model=name, prompt="1+1=", max_tokens=6, seed=3)
    assert answer.object == "chat.completion"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert plain.choices[0].text == answer.choices[0].message.content
    assert plain.usage is not None
    assert plain.usage.prompt_tokens == 4


def stream(service: Service, server: str, path: str, ask: dict[str, Any]) -> Generator[tuple[float, dict[str, Any]]]:
    """The chunks of a streamed answer, each with the time at which it came."""
    with (
        httpx2.Client(base_url=server, headers=service.client.headers, timeout=60.0) as client,
        client.stream("POST", path, json=ask) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield time.monotonic(), json.loads(line.removeprefix("data: "))


def num_asks(service: Service) -> int:
    with service.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Completion)) or 0


def test_without_a_worker_nobody_waits(service: Service) -> None:
    answer = service.client.post("/v1/completions", json=ASK)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")


def test_a_model_of_another_tenant_cannot_be_asked(service: Service) -> None:
    job = service.create_job()
    service.add_checkpoint(job["id"], 2, final=True)
    name = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["fine_tuned_model"]
    assert service.stranger.post("/v1/completions", json=ASK | {"model": name}).status_code == 404


@pytest.mark.usefixtures("answerer")
def test_a_stream_tells_every_token_as_it_is_drawn(service: Service, server: str) -> None:
    ask = ASK | {"max_tokens": 100, "n": 2, "stream": True, "logprobs": 2, "stream_options": {"include_usage": True}}
    whole = service.client.post("/v1/completions", json=ASK | {"max_tokens": 100, "n": 2, "logprobs": 2}).json()
    chunks = [chunk for _, chunk in stream(service, server, "/v1/completions", ask)]
    texts = ["", ""]
    tokens: list[list[tuple[str, float]]] = [[], []]
    offsets: list[list[int]] = [[], []]
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["logprobs"]:
            told = choice["logprobs"]
            tokens[choice["index"]] += zip(told["tokens"], told["token_logprobs"], strict=True)
            offsets[choice["index"]] += choice["logprobs"]["text_offset"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert chunks[-1]["usage"] == whole["usage"]
    assert len(chunks) > 0.5 * whole["usage"]["completion_tokens"]  # not in one piece
    for choice, own, places in zip(whole["choices"], tokens, offsets, strict=True):
        told = choice["logprobs"]
        assert [token for token, _ in own] == told["tokens"]
        assert [logprob for _, logprob in own] == told["token_logprobs"]
        assert places == told["text_offset"]
        assert "".join(told["tokens"]) == choice["text"]
        assert all(len(likely) == 2 and max(likely.values()) <= 0 for likely in told["top_logprobs"])


@pytest.mark.usefixtures("answerer")
def test_a_streams_first_token_comes_before_the_last_is_drawn(service: Service, server: str) -> None:
    warm = service.client.post("/v1/completions", json=ASK)
    assert warm.status_code == 200
    ask = ASK | {"prompt": "1", "max_tokens": 120, "n": 64, "stream": True}
    times = [at for at, _ in stream(service, server, "/v1/completions", ask)]
    assert times[-1] - times[0] > 0.05
    assert len({round(at, 2) for at in times}) > 5


@pytest.mark.usefixtures("answerer")
def test_log_probs_are_those_of_the_model_at_temperature_one(service: Service, model: Path) -> None:
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "1+1="}], "max_tokens": 5, "temperature": 0.3}
    answer = service.client.post(
        "/v1/chat/completions", json=ask | {"logprobs": True, "top_logprobs": 3, "seed": 5}
    ).json()
    content = answer["choices"][0]["logprobs"]["content"]
    tokenizer, network = make_tokenizer(), make_model(spread=1.0)
    ids = tokenizer("1+1=" + "".join(token["token"] for token in content))["input_ids"]
    with torch.no_grad():
        expected = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    for place, token in enumerate(content, start=4):
        assert token["logprob"] == pytest.approx(expected[place - 1, ids[place]].item(), abs=1e-4)
        best = expected[place - 1].topk(3).values.tolist()
        assert [each["logprob"] for each in token["top_logprobs"]] == pytest.approx(best, abs=1e-4)
        assert bytes(token["bytes"]).decode() == token["token"]


@pytest.mark.usefixtures("answerer")
def test_an_answer_ends_before_its_stop_string_streamed_or_not(service: Service, server: str) -> None:
    ask = ASK | {"max_tokens": 100, "seed": 8}
    text = service.client.post("/v1/completions", json=ask).json()["choices"][0]["text"]
    stop = text[10:13]
    ended = service.client.post("/v1/completions", json=ask | {"stop": stop}).json()["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == (text[: text.index(stop)], "stop")
    chunks = [
        chunk for _, chunk in stream(service, server, "/v1/completions", ask | {"stop": ["@@", stop], "stream": True})
    ]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == ended["text"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.usefixtures("answerer")
def test_a_reader_who_leaves_stops_the_drawing(service: Service, server: str) -> None:
    service.client.post("/v1/completions", json=ASK)
    endless = ASK | {"prompt": "1", "max_tokens": 126, "n": 64, "stop": ["@@"], "stream": True}
    reading = stream(service, server, "/v1/completions", endless)
    next(reading)
    reading.close()
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and num_asks(service):
        time.sleep(0.02)
    assert num_asks(service) == 0
    assert service.client.post("/v1/completions", json=ASK).status_code == 200


def test_a_model_that_takes_too_long_is_told_with_a_time_to_come_back(service: Service) -> None:
    service.settings.completion_wait_s = 0.3
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    answer = service.client.post("/v1/completions", json=ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert num_asks(service) == 0


REPLY = {"prompt_tokens": 4, "responses": [{"text": "2", "finish": "stop", "tokens": 1, "logprobs": None}]}


def answer_in_silence(service: Service, *, after_s: float) -> None:
    """What a worker does whose messages nobody carries: it says in the row that it is at work, and at last answers."""

    def take() -> str | None:
        with service.database.transaction() as session:
            taken = completions.take_completion(session, patience_s=60.0)
            return None if taken is None else taken.id

    while (taken := take()) is None:
        time.sleep(0.05)
    until = time.monotonic() + after_s
    while time.monotonic() < until:
        with service.database.transaction() as session:
            assert completions.keep_completion(session, taken)
        time.sleep(0.2)
    with service.database.transaction() as session:
        completions.answer_completion(session, taken, REPLY)


def test_a_long_answer_is_waited_for_while_the_broker_is_away(service: Service) -> None:
    service.settings.completion_wait_s = 1.5
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer_in_silence, service, after_s=4.0)
        answer = service.client.post("/v1/completions", json=ASK)
        answering.result()
    assert (answer.status_code, answer.json()["choices"][0]["text"]) == (200, "2")
    assert num_asks(service) == 0


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_database_that_is_away_for_a_moment_costs_no_answer(
    service: Service, server: str, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    away_until = time.monotonic() + 2.0
    look_at = completions.look_at

    def be_away(session: Session, completion_id: str) -> completions.Standing:
        if time.monotonic() < away_until:
            raise Outage("the server closed the connection")
        return look_at(session, completion_id)

    monkeypatch.setattr("api.asking.completions.look_at", be_away)
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer_in_silence, service, after_s=0.5)
        if is_streamed:
            chunks = [chunk for _, chunk in stream(service, server, "/v1/completions", ASK | {"stream": True})]
            text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        else:
            text = service.client.post("/v1/completions", json=ASK).json()["choices"][0]["text"]
        answering.result()
    assert text == "2"


def test_what_the_relay_lost_is_told_in_the_end() -> None:
    told = _Told()
    first = {"run": "a", "number": 0, "pieces": [{"index": 0, "text": "on", "tokens": []}]}
    lost = {"run": "a", "number": 2, "pieces": [{"index": 0, "text": "!", "tokens": []}]}
    assert [piece.text for piece in told.take(first)] == ["on"]
    assert told.take(lost) == []
    assert told.take({"run": "b", "number": 1, "pieces": []}) == []
    responses = [{"text": "one!", "finish": "stop", "tokens": 3, "logprobs": None}]
    assert [piece.text for piece in told.complete({"prompt_tokens": 1, "responses": responses}).rest] == ["e!"]
    with pytest.raises(Unavailable, match="came out otherwise"):
        told.complete({"prompt_tokens": 1, "responses": [responses[0] | {"text": "two"}]})


def test_the_least_recently_used_model_makes_room(model: Path, models: WarmModels) -> None:
    def hold(name: str) -> int:
        with models.hold((name, "", -1), model, on_wait=lambda: None) as warm:
            return warm.pid

    older, newer = hold("b"), hold("tiny")
    assert hold("b") == older
    newest = hold("c")
    assert not Path(f"/proc/{newer}").exists()
    assert (hold("b"), hold("c")) == (older, newest)


def test_several_texts_are_gone_on_from_at_once(service: Service, answerer: Answerer) -> None:
    both = service.client.post("/v1/completions", json=ASK | {"prompt": ["1+1=", "2+2="], "n": 2}).json()
    alone = service.client.post("/v1/completions", json=ASK | {"n": 2}).json()
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["choices"][:2] == alone["choices"]


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"temperature": 3},
        {"max_tokens": 0},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": ["1"] * 3, "n": 64},
        {"logit_bias": {}},
        {"seed": -1},
        {"stop": ""},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"logprobs": 21},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_a_bad_ask_is_refused(service: Service, change: dict[str, Any]) -> None:
    assert service.client.post("/v1/completions", json=ASK | change).status_code == 422


def test_an_ask_whose_worker_is_lost_is_taken_again(service: Service) -> None:
    with service.database.transaction() as session:
        made = completions.new_completion_id()
        completions.add_completion(session, "ours", "tiny", None, {}, completion_id=made)
    with service.database.transaction() as session:
        assert completions.take_completion(session, patience_s=60.0) is not None
    with service.database.transaction() as session:
        assert completions.take_completion(session, patience_s=60.0) is None
        assert completions.keep_completion(session, made)
        assert not completions.keep_completion(session, "cmpl-none")
    with service.database.transaction() as session:
        again = completions.take_completion(session, patience_s=-1.0)
        assert again is not None
        assert again.id == made
        assert completions.take_completion(session, patience_s=-1.0, busy=[("tiny", "", -1)]) is None


def test_a_folder_without_a_model_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReplyError, match="cannot be loaded"):
        WarmModel(tmp_path)


def test_the_models_process_leaves_with_its_input(model: Path) -> None:
    warm = WarmModel(model)
    process = warm._process
    assert process.stdin is not None
    process.stdin.close()
    deadline = time.monotonic() + 20.0
    while warm.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.returncode == 0
