"""The report on a file, its parts, and files that are no plain JSONL, over the wire."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.counting import load_counter
from api.prompts import PromptIndex
from stapo_core.rollout.prompts import encode_prompts
from tests.api.conftest import ROWS, Service, to_jsonl
from tests.stapo_core.tiny import make_tokenizer

SOURCE = {"source": "reasoning_gym", "task": "chain_sum", "config": {"size": 300, "seed": 0}}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def report(service: Service, file_id: str, **query: Any) -> dict[str, Any]:
    answer = service.client.get(f"/v1/files/{file_id}/validation", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def tokenizer(service: Service) -> Any:
    """The tokenizer of a base model that the service knows as `counted`."""
    folder = service.settings.models_dir / "counted"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: pa.compress(content, codec="zstd", asbytes=True)])
def test_a_compressed_file_is_taken_as_it_is_and_trained_on(service: Service, pack: Any) -> None:
    content = pack(to_jsonl(ROWS))
    file = service.upload(content)
    assert service.client.get(f"/v1/files/{file['id']}/content").content == content
    assert report(service, file["id"])["num_rows"] == len(ROWS)
    assert service.create_job(training_file=file["id"])["training_file"] == file["id"]


def test_a_parquet_file_is_taken_as_it_is_and_trained_on(service: Service) -> None:
    file = service.upload(parquet(ROWS))
    assert report(service, file["id"], fields="answer")["num_kept"] == len(ROWS)
    assert service.create_job(training_file=file["id"])["training_file"] == file["id"]


def test_a_source_is_a_file_of_one_line(service: Service) -> None:
    file = service.upload(json.dumps(SOURCE).encode())
    job = service.create_job(training_file=file["id"], reinforcement={"grader": {"type": "reasoning_gym"}})
    config = job["method"]["reinforcement"]["config"]
    assert config["evaluation"]["held_out_share"] == 0.05
    assert job["num_steps"] == (300 - 15) // config["batch"]["num_prompts"]
    seen = report(service, file["id"], fields="answer,reasoning_gym")
    assert (seen["num_rows"], seen["num_kept"]) == (300, 300)


def test_a_source_with_an_unknown_task_is_refused_with_what_may_be_meant(service: Service) -> None:
    content = json.dumps(SOURCE | {"task": "chain_sums"}).encode()
    answer = service.client.post("/v1/files", files={"file": ("s.jsonl", content)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 422
    assert "s.jsonl: line 1: " in answer.json()["detail"]
    assert "did you mean 'chain_sum'" in answer.json()["detail"]


def test_a_refused_upload_counts_every_fault_and_lists_a_hundred_of_each_reason(service: Service) -> None:
    content = b'{"prompt": NaN}\n' * 130 + b"{\n" * 3
    answer = service.client.post("/v1/files", files={"file": ("bad.jsonl", content)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 422
    assert "(the first of 133 faults: 130 not_finite, 3 not_json; see errors)" in answer.json()["detail"]
    assert len(answer.json()["errors"]) == 103


def test_a_part_held_out_and_a_validation_file_contradict_each_other(service: Service) -> None:
    file = service.upload()
    reinforcement = {"config": {"evaluation": {"held_out_share": 0.2}}}
    body = service.job_body(validation_file=file["id"], reinforcement=reinforcement)
    answer = service.client.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["param"] == "method.reinforcement.config.evaluation.held_out_share"


def test_tokens_are_counted_as_the_trainer_counts_them(service: Service, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "1+1="},
        {"prompt": "a longer one, with words"},
        {"messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": " 2+2? "}]},
    ]
    trained = [len(prompt.token_ids) for prompt in encode_prompts(rows, tokenizer, 999)]
    counter = load_counter(service.settings.models_dir / "counted")
    assert counter.count([row.get("prompt", row.get("messages")) for row in rows]) == trained
    seen = report(service, service.upload(rows)["id"], model="counted", max_prompt_tokens=trained[0])
    assert (seen["prompt_tokens"]["min"], seen["prompt_tokens"]["max"]) == (min(trained), max(trained))
    (refusal,) = seen["refused"]
    assert (refusal["reason"], [each["line"] for each in refusal["examples"]]) == ("prompt_too_long", [2, 3])
    assert seen["num_kept"] == 1


def test_a_limit_without_a_model_is_refused(service: Service) -> None:
    file = service.upload()
    answer = service.client.get(f"/v1/files/{file['id']}/validation", params={"max_prompt_tokens": 5})
    assert (answer.status_code, answer.json()["param"]) == (422, "model")


@pytest.mark.parametrize("num_prompts", [50, 300_000])
def test_repeats_are_those_that_a_dict_finds_also_when_they_lie_on_disk(tmp_path: Path, num_prompts: int) -> None:
    rng = random.Random(num_prompts)
    digests = [rng.randbytes(16) for _ in range(num_prompts)]
    others = rng.sample(digests, num_prompts // 10) * 2
    own = rng.choices(digests, k=num_prompts * 2)
    first: dict[bytes, int] = {}
    repeats = [(line, first[d]) for line, d in enumerate(own, 1) if first.setdefault(d, line) != line]
    held = set(others)
    shared = [(line, 0) for line, digest in enumerate(own, 1) if digest in held]
    with PromptIndex(tmp_path) as index:
        for digest in others:
            index.add_other(digest)
        for line, digest in enumerate(own, 1):
            index.add(digest, line)
        duplicates, overlaps = index.find(100)
    assert (duplicates.count, duplicates.listed) == (len(repeats), repeats[:100])
    assert (overlaps.count, overlaps.listed) == (len(shared), shared[:100])
    assert list(tmp_path.iterdir()) == []
