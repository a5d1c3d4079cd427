"""What may happen to a job's sources while the job is being made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.store import artifacts, files, jobs
from tests.api.conftest import Service

JOBS = "/v1/fine_tuning/jobs"


@contextmanager
def reading(service: Service, file_id: str, path: str, body: dict[str, Any]) -> Iterator[Future[httpx2.Response]]:
    """A POST that stands still inside the reading of a file until the block ends; then the file is whole again."""
    place = service.settings.files_dir / file_id
    content = place.read_bytes()
    place.unlink()
    os.mkfifo(place)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(service.client.post, path, json=body)
        with place.open("wb"):  # opens when the other end does
            whole = place.with_name("whole")
            whole.write_bytes(content)
            whole.rename(place)
            yield asked


@pytest.mark.parametrize("kind", ["fork", "job"])
def test_while_a_file_is_read_no_row_is_locked_and_no_transaction_stands_open(service: Service, kind: str) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    model = f"ft:tiny::{parent['id'].removeprefix('ftjob-')}:ckpt-step-2"
    path = f"{JOBS}/{parent['id']}/fork" if kind == "fork" else JOBS
    body = {} if kind == "fork" else service.job_body(model=model, training_file=parent["training_file"])
    with reading(service, parent["training_file"], path, body), service.database.transaction() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert session.scalar(text(query)) == 0
        session.execute(text("SELECT id FROM jobs FOR UPDATE NOWAIT"))


def test_a_checkpoint_that_is_dropped_while_a_file_is_read_is_asked_for_again(service: Service) -> None:
    parent = service.create_job()
    service.add_checkpoint(parent["id"], 2)
    path = f"{JOBS}/{parent['id']}/fork"
    with reading(service, parent["training_file"], path, {}) as asked:
        newest = service.add_checkpoint(parent["id"], 4)
        with service.database.transaction() as session:
            artifacts.drop_checkpoints(session, jobs.lock_job(session, "ours", parent["id"]), keep=1)
    answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_replaced")
    assert answer.headers["Retry-After"] == "1"
    assert service.client.post(path, json={}).json()["base_checkpoint"] == newest


def test_a_file_that_is_deleted_while_it_is_read_is_refused_by_its_field(service: Service) -> None:
    file_id = service.upload()["id"]
    with reading(service, file_id, JOBS, service.job_body(training_file=file_id)) as asked:
        assert service.client.delete(f"/v1/files/{file_id}").status_code == 200
    answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    assert answer.json()["param"] == "training_file"


def test_a_file_whose_bytes_are_gone_is_refused_by_its_field(service: Service) -> None:
    file_id = service.upload()["id"]
    (service.settings.files_dir / file_id).unlink()
    answer = service.client.post(JOBS, json=service.job_body(training_file=file_id))
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")


def test_a_file_of_a_job_that_is_being_queued_is_kept(service: Service) -> None:
    file_id = service.upload()["id"]
    with ThreadPoolExecutor(1) as pool, service.database.transaction() as session:
        files.hold_file(session, "ours", file_id, param="training_file")
        asked = pool.submit(service.client.delete, f"/v1/files/{file_id}")
        wait_for_a_waiter(service)
        new = jobs.NewJob(
            model="tiny",
            training_file=file_id,
            validation_file=None,
            suffix=None,
            seed=0,
            method={},
            num_steps=1,
        )
        job_id = jobs.create_job(session, "ours", new).id
        session.commit()
        answer = asked.result(timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (409, "file_in_use")
    assert job_id in answer.json()["detail"]


def wait_for_a_waiter(service: Service) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while True:
        with service.database.transaction() as session:
            if session.scalar(text(waiting)):
                return
