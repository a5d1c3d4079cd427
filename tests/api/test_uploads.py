"""Where the bytes of an upload go, also when it comes to nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from api.settings import Settings
from tests.api.conftest import ROWS, Service, to_jsonl

FAILS_TO_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON files DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_upload_bytes": 4_000_000})


def test_a_large_upload_takes_no_room_in_the_temporary_folder(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    rows = [{"prompt": "x" * 1000}] * 2000
    file = service.upload(rows)
    assert file["bytes"] == len(to_jsonl(rows)) > 2**20
    assert [path.name for path in service.settings.files_dir.iterdir()] == [file["id"]]


def test_a_commit_that_fails_leaves_no_bytes(service: Service) -> None:
    with service.database.transaction() as session:
        session.execute(text(FAILS_TO_COMMIT))
    answer = service.client.post(
        "/v1/files", files={"file": ("t.jsonl", to_jsonl(ROWS))}, data={"purpose": "fine-tune"}
    )
    assert answer.status_code == 500
    assert service.client.get("/v1/files").json()["data"] == []
    assert list(service.settings.files_dir.iterdir()) == []


@pytest.mark.parametrize("part", ["content", "validation"])
def test_a_file_whose_bytes_have_just_gone_is_not_found(service: Service, part: str) -> None:
    file_id = service.upload()["id"]
    (service.settings.files_dir / file_id).unlink()
    answer = service.client.get(f"/v1/files/{file_id}/{part}")
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
