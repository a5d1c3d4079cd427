"""Every example of docs/api.md, run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from openai import OpenAI

from api.examples import ANSWERS, EXAMPLES, fill_in, look_up, read_answers
from api.reference import DOCS, render_curl
from client.http import Client
from tests.api.conftest import ROWS, Service, to_jsonl
from tests.api.examples import KEEP, Constant, blocks_of, keep, run_curl
from tests.api.operations import OPERATIONS, PUBLIC, document
from tests.api.population import QuickWorker

PAGE = (DOCS / "api.md").read_text()
BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader of the page works."""
    (tmp_path / "problems.jsonl").write_bytes(to_jsonl(ROWS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def worker(service: Service) -> Iterator[QuickWorker]:
    """Answers prompts; jobs end when the test says so."""
    (service.settings.models_dir / "tiny").rename(service.settings.models_dir / "stapo-demo-base")
    worker = QuickWorker(service.database, service.settings)
    with worker.answering():
        yield worker


@pytest.fixture
def variables(service: Service, server: str) -> dict[str, str]:
    """What the reader has at hand."""
    key = str(service.client.headers["authorization"]).removeprefix("Bearer ")
    return {"STAPO": server, "STAPO_API_KEY": key, "SPARE": service.upload()["id"]}


def test_each_operation_has_an_example_and_each_example_an_operation() -> None:
    assert {example.operation for example in EXAMPLES} == set(BY_NAME)
    assert len(EXAMPLES) == len(BY_NAME)
    assert set(read_answers()) == set(BY_NAME)


def test_every_command_of_the_page_does_what_the_page_says(
    variables: dict[str, str], worker: QuickWorker, folder: Path
) -> None:
    constant, kept = Constant(), {}
    for operation, command in commands():
        example = next(each for each in EXAMPLES if each.operation == operation)
        if example.after_the_job:
            worker.end_jobs()
        answer = run_curl(command, variables, folder)
        is_json = answer.headers.get("content-type", "").endswith("json")
        variables |= {name: look_up(answer.json(), pointer) for name, pointer in example.saves.items()}
        assert answer.is_success, (command, answer.text)
        kept[operation] = keep(answer, constant)
        if os.environ.get(KEEP):
            continue
        assert answer.status_code == read_answers()[operation].status, (command, answer.text)
        if is_json:
            validate(operation, answer.status_code, answer.json())
    if os.environ.get(KEEP):
        ANSWERS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def commands() -> Iterator[tuple[str, str]]:
    """Those of the page; those that it will have, where it is about to be written."""
    if not os.environ.get(KEEP):
        yield from ((operation, blocks["sh"]) for operation, blocks in blocks_of(PAGE))
        return
    for example in EXAMPLES:
        operation = BY_NAME[example.operation]
        is_public = operation.name in PUBLIC
        yield operation.name, render_curl(operation.method.lower(), operation.path, example, is_public=is_public)


def test_every_line_of_python_on_the_page_runs(variables: dict[str, str], worker: QuickWorker, folder: Path) -> None:
    with (
        OpenAI(base_url=f"{variables['STAPO']}/v1", api_key=variables["STAPO_API_KEY"], max_retries=0) as client,
        Client(variables["STAPO"], variables["STAPO_API_KEY"]) as stapo,
    ):
        names: dict[str, Any] = {"client": client, "stapo": stapo, "Path": Path}
        num_run = 0
        for operation, blocks in blocks_of(PAGE):
            if next(each for each in EXAMPLES if each.operation == operation).after_the_job:
                worker.end_jobs()
            if "python" in blocks:
                exec(compile(blocks["python"], f"docs/api.md: {operation}", "exec"), names)  # noqa: S102
                num_run += 1
        assert num_run > 35
        assert names["job"].status == "succeeded"
        assert (folder / "my-model" / "config.json").read_text() == "{}"


def test_every_kept_answer_is_what_the_document_says() -> None:
    for operation, answer in read_answers().items():
        if answer.media_type == "application/json":
            validate(operation, answer.status, answer.body)


def test_every_request_of_an_example_is_what_the_document_says() -> None:
    for example in EXAMPLES:
        if example.body is not None:
            operation = BY_NAME[example.operation]
            described = document()["paths"][operation.path][operation.method.lower()]
            content = described["requestBody"]["content"]["application/json"]
            check(content["schema"], fill_in(example.body, {}))


def validate(operation: str, status: int, body: Any) -> None:
    found = BY_NAME[operation]
    described = document()["paths"][found.path][found.method.lower()]["responses"][str(status)]
    check(described["content"]["application/json"]["schema"], body)


def check(schema: dict[str, Any], body: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document()["components"]}).validate(body)
