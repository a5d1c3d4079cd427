from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.api.conftest import ROWS, Service, to_jsonl


def test_an_uploaded_file_comes_back_byte_for_byte(service: Service) -> None:
    content = to_jsonl(ROWS)
    file = service.upload()
    assert file["bytes"] == len(content)
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert service.client.get(f"/v1/files/{file['id']}").json() == file
    assert service.client.get(f"/v1/files/{file['id']}/content").content == content


def test_a_range_of_a_file_can_be_read(service: Service) -> None:
    file = service.upload()
    answer = service.client.get(f"/v1/files/{file['id']}/content", headers={"Range": "bytes=2-7"})
    assert (answer.status_code, answer.content) == (206, to_jsonl(ROWS)[2:8])


def test_a_range_outside_of_a_file_is_refused_as_the_document_says(service: Service) -> None:
    job = service.create_job()
    checkpoint = service.add_checkpoint(job["id"], 2)
    paths = service.client.get("/openapi.json").json()["paths"]
    for base, template in (
        (f"/v1/files/{job['training_file']}/content", "/v1/files/{file_id}/content"),
        (
            f"/v1/fine_tuning/checkpoints/{checkpoint}/files/config.json",
            "/v1/fine_tuning/checkpoints/{checkpoint_id}/files/{path}",
        ),
    ):
        answer = service.client.get(base, headers={"Range": "bytes=1000000-"})
        assert (answer.status_code, answer.headers["content-type"]) == (416, "application/problem+json")
        described = paths[template]["get"]["responses"]
        assert described["416"]["content"] == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }
        assert "Content-Range" in described["206"]["headers"]


def test_files_are_paged_newest_first_without_a_gap(service: Service) -> None:
    ids = [service.upload()["id"] for _ in range(5)]
    first = service.client.get("/v1/files", params={"limit": 3}).json()
    rest = service.client.get("/v1/files", params={"limit": 3, "after": first["last_id"]}).json()
    assert [file["id"] for file in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b'{"prompt": "a"}\n{"prompt": 3}\n', 2, "'prompt'"),
        (b'{"prompt": "a"}\n\n{"prompt": "b"\n', 3, "JSON"),
        (b'{"prompt": "a", "x": NaN}\n', 1, "NaN"),
        (b'{"prompt": "\xff"}\n', 1, "UTF-8"),
    ],
)
def test_a_faulty_line_is_refused_by_its_number_and_nothing_is_kept(
    service: Service, content: bytes, line: int, words: str
) -> None:
    answer = service.client.post("/v1/files", files={"file": ("t.jsonl", content)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 422
    assert f"line {line}" in answer.json()["detail"]
    assert words in answer.json()["detail"]
    assert service.client.get("/v1/files").json()["data"] == []
    assert list(service.settings.files_dir.iterdir()) == []


def test_a_file_over_the_limit_is_refused(service: Service) -> None:
    big = to_jsonl([{"prompt": "x" * 1000}] * 110)
    answer = service.client.post("/v1/files", files={"file": ("t.jsonl", big)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"
    assert list(service.settings.files_dir.iterdir()) == []


def test_another_tenants_file_does_not_exist(service: Service) -> None:
    file_id = service.upload()["id"]
    for call in (service.stranger.get, service.stranger.delete):
        assert call(f"/v1/files/{file_id}").status_code == 404
    assert service.stranger.get(f"/v1/files/{file_id}/content").status_code == 404
    assert service.stranger.get("/v1/files").json()["data"] == []


def test_a_file_that_a_job_refers_to_is_kept(service: Service) -> None:
    job = service.create_job()
    answer = service.client.delete(f"/v1/files/{job['training_file']}")
    assert answer.status_code == 409
    assert job["id"] in answer.json()["detail"]


def test_a_deleted_file_is_gone_with_its_bytes(service: Service) -> None:
    file_id = service.upload()["id"]
    assert service.client.delete(f"/v1/files/{file_id}").json()["deleted"] is True
    assert service.client.get(f"/v1/files/{file_id}").status_code == 404
    assert list(service.settings.files_dir.iterdir()) == []


def test_the_same_upload_with_the_same_key_is_stored_once(service: Service) -> None:
    once, again = (service.upload(ROWS, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert once == again
    assert len(list(service.settings.files_dir.iterdir())) == 1


def test_the_report_names_what_a_job_would_refuse_and_what_stands_twice(service: Service) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "1+1=", "answer": "2"},
        {"prompt": "2+2="},
        {"prompt": "1+1=", "answer": "3"},
        {"prompt": "a longer one", "answer": None},
    ]
    file = service.upload(rows)
    other = service.upload([{"prompt": "2+2="}, {"prompt": "9+9="}])
    query = {"fields": "answer", "validation_file": other["id"]}
    report = service.client.get(f"/v1/files/{file['id']}/validation", params=query).json()
    assert (report["num_rows"], report["num_kept"], report["num_refused"]) == (4, 2, 2)
    (refusal,) = report["refused"]
    assert (refusal["reason"], refusal["count"]) == ("missing_field:answer", 2)
    assert [row["line"] for row in refusal["examples"]] == [2, 4]
    assert "add it to every row" in refusal["examples"][0]["detail"]
    assert report["duplicates"] == [{"line": 3, "first_line": 1}]
    assert report["missing"] == {"answer": 2}
    assert report["overlap"] == {"file_id": other["id"], "count": 1, "lines": [2]}
    lengths = report["prompt_characters"]
    assert (lengths["min"], lengths["max"], lengths["mean"], lengths["median"]) == (4, 12, 6.0, 4)
    assert sum(each["count"] for each in lengths["histogram"]) == 4


def test_the_report_is_the_tenants_alone(service: Service) -> None:
    file, theirs = service.upload(), "file-0"
    assert service.stranger.get(f"/v1/files/{file['id']}/validation").status_code == 404
    answer = service.client.get(f"/v1/files/{file['id']}/validation", params={"validation_file": theirs})
    assert (answer.status_code, answer.json()["param"]) == (404, "validation_file")
