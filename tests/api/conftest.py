"""The API against a real Postgres and a real Valkey: an application, two tenants, a model folder."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from api.store import jobs, keys, leases
from api.store.database import Database
from tests.api import population
from tests.conftest import find_free_port
from worker.answering import Answerer, WarmModels

ROWS = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(10)]


@dataclass
class Service:
    """The API as one tenant sees it, and the means to look behind it."""

    client: TestClient
    stranger: TestClient
    database: Database
    settings: Settings

    def upload(self, rows: list[dict[str, Any]] | bytes = ROWS, **headers: str) -> dict[str, Any]:
        content = rows if isinstance(rows, bytes) else to_jsonl(rows)
        answer = self.client.post(
            "/v1/files", files={"file": ("t.jsonl", content)}, data={"purpose": "fine-tune"}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def create_job(self, **changes: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/fine_tuning/jobs", json=self.job_body(**changes))
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def add_checkpoint(
        self, job_id: str, step: int, *, final: bool = False, paths: Sequence[str] = population.MODEL
    ) -> str:
        """A published checkpoint of a few bytes, as a worker would leave it; returns its id."""
        with self.database.transaction() as session:
            job = jobs.lock_job(session, "ours", job_id)
            return population.add_checkpoint(self.settings, session, job, step, final=final, paths=paths)

    def job_body(self, **changes: Any) -> dict[str, Any]:
        body = {
            "model": "tiny",
            "training_file": changes.pop("training_file", None) or self.upload()["id"],
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {"type": "numeric", "reference": "{{item.answer}}"},
                    "config": {"batch": {"num_prompts": 2, "group_size": 4}},
                    **changes.pop("reinforcement", {}),
                },
            },
        }
        return body | changes


def to_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def settings(home: Path, fresh_database: str, valkey_url: str) -> Settings:
    (home / "models" / "tiny").mkdir(parents=True)
    (home / "models" / "tiny" / "config.json").write_text("{}")
    return Settings(
        home=home, database_url=fresh_database, broker_url=valkey_url, max_upload_bytes=100_000, stream_poll_s=0.05
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    yield database
    database.close()


@pytest.fixture
def service(settings: Settings, database: Database) -> Iterator[Service]:
    with database.transaction() as session:
        ours = keys.create_key(session, tenant="ours", name="test")
        theirs = keys.create_key(session, tenant="theirs", name="test")
    app = create_app(settings)
    with TestClient(app, headers={"Authorization": f"Bearer {ours}"}) as client:
        stranger = TestClient(app, headers={"Authorization": f"Bearer {theirs}"})
        yield Service(client, stranger, database, settings)


@pytest.fixture(scope="module")
def models() -> Iterator[WarmModels]:
    """What a worker holds in memory; it stays while databases and workers of single tests come and go."""
    models = WarmModels(most=2)
    yield models
    models.close()


@pytest.fixture
def answerer(service: Service, model: Path, models: WarmModels) -> Iterator[Answerer]:
    """A worker's answering thread, over a models folder that holds the module's `model` as `tiny`."""
    folder = service.settings.models_dir / "tiny"
    (folder / "config.json").unlink()
    folder.rmdir()
    folder.symlink_to(model)
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    answerer = Answerer(service.database, service.settings, models)
    answerer.start()
    yield answerer
    answerer.stop()


@pytest.fixture
def server(service: Service) -> Iterator[str]:
    """The API behind a real server: a stream needs one."""
    port = find_free_port()
    config = uvicorn.Config(create_app(service.settings), port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
