"""Prompts answered by a real model in a process of its own, asked over the wire and by the official client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from api.store import artifacts, completions, leases
from tests.api.conftest import Service
from tests.stapo_core.tiny import make_model, make_tokenizer
from worker.answering import Answerer
from worker.replies import ReplyError, WarmModel

ASK: dict[str, Any] = {"model": "tiny", "prompt": "1+1=", "max_tokens": 6, "seed": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def answerer(service: Service, model: Path) -> Iterator[Answerer]:
    """A worker's answering thread, over a models folder that holds the tiny model."""
    folder = service.settings.models_dir / "tiny"
    (folder / "config.json").unlink()
    folder.rmdir()
    folder.symlink_to(model)
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    answerer = Answerer(service.database, service.settings)
    answerer.start()
    yield answerer
    answerer.stop()


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
    assert "127 tokens" in long.json()["detail"]
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
def test_the_official_client_asks_a_fine_tuned_checkpoint(service: Service, server: str, model: Path) -> None:
    job = service.create_job()
    service.add_checkpoint(job["id"], 2, final=True)
    folder = artifacts.folder_path(service.settings.artifacts_dir, job["id"], 2)
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    name = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["fine_tuned_model"]
    key = service.client.headers["authorization"].removeprefix("Bearer ")
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


def test_without_a_worker_nobody_waits(service: Service) -> None:
    answer = service.client.post("/v1/completions", json=ASK)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")


def test_a_model_of_another_tenant_cannot_be_asked(service: Service) -> None:
    job = service.create_job()
    service.add_checkpoint(job["id"], 2, final=True)
    name = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["fine_tuned_model"]
    assert service.stranger.post("/v1/completions", json=ASK | {"model": name}).status_code == 404


@pytest.mark.parametrize(
    "change", [{"n": 0}, {"temperature": 3}, {"max_tokens": 0}, {"prompt": ""}, {"logit_bias": {}}, {"seed": -1}]
)
def test_a_bad_ask_is_refused(service: Service, change: dict[str, Any]) -> None:
    assert service.client.post("/v1/completions", json=ASK | change).status_code == 422


def test_an_ask_whose_worker_is_lost_is_taken_again(service: Service) -> None:
    with service.database.transaction() as session:
        made = completions.add_completion(session, "ours", "tiny", None, {})
    with service.database.transaction() as session:
        assert completions.take_completion(session, patience_s=60.0) is not None
    with service.database.transaction() as session:
        assert completions.take_completion(session, patience_s=60.0) is None
    with service.database.transaction() as session:
        again = completions.take_completion(session, patience_s=-1.0)
        assert again is not None
        assert again.id == made


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
