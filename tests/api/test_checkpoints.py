from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from api.routes import models
from api.store import artifacts, jobs
from tests.api.conftest import Service

CONTENT = {"model.safetensors": bytes(range(256)) * 400, "trainer/state.json": b"{}"}


@pytest.fixture
def checkpoint_id(service: Service, tmp_path: Path) -> str:
    job_id = service.create_job()["id"]
    for path, content in CONTENT.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    files = [
        {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in CONTENT.items()
    ]
    service.settings.artifacts_dir.joinpath(job_id).mkdir(parents=True)
    artifacts.publish_folder(tmp_path, service.settings.artifacts_dir, job_id, 5)
    with service.database.transaction() as session:
        job = jobs.lock_job(session, "ours", job_id)
        row = artifacts.add_checkpoint(session, job, step=5, final=True, files=files, metrics={"reward/mean": 0.5})
        return row.id


def url_of(checkpoint_id: str, path: str = "model.safetensors") -> str:
    return f"/v1/fine_tuning/checkpoints/{checkpoint_id}/files/{path}"


def test_a_file_comes_whole_with_its_digest(service: Service, checkpoint_id: str) -> None:
    answer = service.client.get(url_of(checkpoint_id))
    digest = hashlib.sha256(CONTENT["model.safetensors"]).digest()
    assert answer.content == CONTENT["model.safetensors"]
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert answer.headers["etag"] == f'"{digest.hex()}"'


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [("bytes=0-9", 206, 0, 10), ("bytes=102390-", 206, 102390, 102400), ("bytes=-5", 206, 102395, 102400)],
)
def test_a_range_is_given(service: Service, checkpoint_id: str, asked: str, status: int, start: int, stop: int) -> None:
    answer = service.client.get(url_of(checkpoint_id), headers={"Range": asked})
    assert answer.status_code == status
    assert answer.content == CONTENT["model.safetensors"][start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/102400"


def test_a_range_outside_is_a_problem(service: Service, checkpoint_id: str) -> None:
    answer = service.client.get(url_of(checkpoint_id), headers={"Range": "bytes=102400-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */102400"
    assert answer.json()["status"] == 416


def test_a_known_file_answers_304(service: Service, checkpoint_id: str) -> None:
    etag = service.client.get(url_of(checkpoint_id)).headers["etag"]
    assert service.client.get(url_of(checkpoint_id), headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("path", ["../../api_key", "..%2f..%2fapi_key", "/etc/passwd", "model", "trainer/../x", ""])
def test_a_path_is_found_only_in_the_checkpoints_own_list(service: Service, checkpoint_id: str, path: str) -> None:
    (service.settings.home / "api_key").write_text("secret")
    answer = service.client.get(url_of(checkpoint_id, path))
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_the_archive_holds_every_file(service: Service, checkpoint_id: str) -> None:
    answer = service.client.get(f"/v1/fine_tuning/checkpoints/{checkpoint_id}/archive")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        read = {name.partition("/")[2]: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert read == CONTENT


def test_checkpoints_are_listed_with_sizes_and_digests(service: Service, checkpoint_id: str) -> None:
    listed = service.client.get(f"/v1/fine_tuning/checkpoints/{checkpoint_id}").json()
    page = service.client.get(f"/v1/fine_tuning/jobs/{listed['fine_tuning_job_id']}/checkpoints").json()
    assert page["data"] == [listed]
    assert (listed["step_number"], listed["bytes"], listed["metrics"]["step"]) == (5, 102402, 5)
    job = service.client.get(f"/v1/fine_tuning/jobs/{listed['fine_tuning_job_id']}").json()
    assert job["fine_tuned_model"].startswith("ft:tiny:")


def test_another_tenants_checkpoint_does_not_exist(service: Service, checkpoint_id: str) -> None:
    for suffix in ("", "/archive", "/files/model.safetensors"):
        assert service.stranger.get(f"/v1/fine_tuning/checkpoints/{checkpoint_id}{suffix}").status_code == 404


def test_a_list_of_models_says_that_it_is_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_CHECKPOINTS", 2)
    job = service.create_job()
    for step in (1, 2, 3):
        listed = service.client.get("/v1/models").json()
        assert listed["has_more"] is False
        service.add_checkpoint(job["id"], step)
    listed = service.client.get("/v1/models").json()
    assert listed["has_more"] is True
    assert [model["id"].rpartition("-")[2] for model in listed["data"]] == ["tiny", "3", "2"]


def test_a_checkpoint_whose_files_have_just_gone_is_not_found(service: Service, checkpoint_id: str) -> None:
    path = f"/v1/fine_tuning/checkpoints/{checkpoint_id}"
    for file in list(service.settings.artifacts_dir.glob("*/*/*")):
        if file.is_file():
            file.unlink()
    for part in ("archive", "files/model.safetensors"):
        answer = service.client.get(f"{path}/{part}")
        assert (answer.status_code, answer.json()["code"]) == (404, "checkpoint_not_found")
