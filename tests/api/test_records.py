from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.lifecycle import JobState
from api.logs import read_log
from api.schemas import MetricsPoint
from api.store import jobs, leases, metrics
from api.store.events import move
from tests.api.conftest import ROWS, Service, to_jsonl
from tests.api.streams import headers_of, read_stream

JOBS = "/v1/fine_tuning/jobs"


def canonical_sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def add_steps(service: Service, job_id: str, values: dict[int, dict[str, float | None]]) -> None:
    with service.database.transaction() as session:
        job = jobs.lock_job(session, "ours", job_id)
        for step, figures in values.items():
            metrics.add_metrics(session, job, "train", step, figures, datetime.now(UTC))


@pytest.fixture
def log(service: Service) -> tuple[str, list[str]]:
    """The id of a job and the lines of its trainer's log."""
    job_id = service.create_job()["id"]
    lines = [f"line {number} é\n" for number in range(9000)]
    folder = service.settings.runs_dir / job_id
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("".join(lines))
    return job_id, lines


def test_the_manifest_holds_what_a_run_follows_from(service: Service) -> None:
    job = service.create_job(seed=5)
    service.add_checkpoint(job["id"], 2)
    with service.database.transaction() as session:
        claimed = leases.claim_job(session, worker="w", lease_s=60.0)
        assert claimed is not None
        about: dict[str, Any] = {"device": "cpu, 2 threads", "versions": {"torch": "2.13.0"}, "num_parameters": 7}
        move(session, claimed, JobState.RUNNING, "Training begins.", **about)
    manifest = service.client.get(f"{JOBS}/{job['id']}/manifest").json()
    reinforcement = job["method"]["reinforcement"]
    assert manifest["config_sha256"] == canonical_sha256(reinforcement["config"])
    assert manifest["grader_sha256"] == canonical_sha256(reinforcement["grader"])
    assert manifest["training_file"]["sha256"] == hashlib.sha256(to_jsonl(ROWS)).hexdigest()
    assert (manifest["seed"], manifest["attempts"], manifest["num_parameters"]) == (5, 1, 7)
    assert (manifest["device"], manifest["versions"]) == ("cpu, 2 threads", {"torch": "2.13.0"})
    assert [checkpoint["step"] for checkpoint in manifest["checkpoints"]] == [2]


def test_a_log_is_read_piece_by_piece_without_a_gap(service: Service, log: tuple[str, list[str]]) -> None:
    job_id, lines = log
    read, offset, has_more = "", 0, True
    while has_more:
        query = {"offset": offset, "max_bytes": 2000}
        part = service.client.get(f"{JOBS}/{job_id}/logs", params=query).json()
        assert part["text"].endswith("\n")
        read, offset, has_more = read + part["text"], part["next_offset"], part["has_more"]
    assert read == "".join(lines)


def test_the_end_of_a_log_begins_with_a_whole_line(service: Service, log: tuple[str, list[str]]) -> None:
    job_id, lines = log
    part = service.client.get(f"{JOBS}/{job_id}/logs", params={"offset": -100}).json()
    told = part["text"].splitlines(keepends=True)
    assert 5 < len(told) < 9
    assert told == lines[-len(told) :]


def test_a_job_that_has_not_begun_has_an_empty_log(service: Service) -> None:
    part = service.client.get(f"{JOBS}/{service.create_job()['id']}/logs").json()
    assert (part["text"], part["next_offset"], part["has_more"]) == ("", 0, False)


def test_a_line_that_is_still_being_written_waits(service: Service, log: tuple[str, list[str]]) -> None:
    path = service.settings.runs_dir / log[0] / "trainer.log"
    size = path.stat().st_size
    path.open("a").write("half")
    assert read_log(path, size, is_over=False).text == ""
    path.open("a").write(" and whole\n")
    assert read_log(path, size, is_over=False).text == "half and whole\n"


def test_the_last_words_of_a_trainer_are_told_without_their_end(
    service: Service, server: str, log: tuple[str, list[str]]
) -> None:
    job_id, lines = log
    path = service.settings.runs_dir / job_id / "trainer.log"
    size = path.stat().st_size
    path.open("a").write("Killed wh")
    with service.database.transaction() as session:
        assert leases.claim_job(session, worker="w", lease_s=60.0) is not None
    held = service.client.get(f"{JOBS}/{job_id}/logs", params={"offset": size}).json()
    assert (held["text"], held["next_offset"], held["has_more"]) == ("", size, False)

    with service.database.transaction() as session:
        jobs.get_job(session, "ours", job_id).state = JobState.FAILED
    last = service.client.get(f"{JOBS}/{job_id}/logs", params={"offset": size}).json()
    assert (last["text"], last["next_offset"], last["has_more"]) == ("Killed wh", size + 9, False)
    told = read_stream(f"{server}{JOBS}/{job_id}/logs/stream", headers_of(service))
    assert "".join(data["text"] for name, _, data in told if name == "log") == "".join(lines) + "Killed wh"
    assert service.client.get(f"{JOBS}/{job_id}/logs/stream", params={"after": told[-2][1]}).status_code == 204


@pytest.mark.parametrize("is_over", [False, True])
def test_a_line_that_is_longer_than_a_part_is_read_in_parts(tmp_path: Path, is_over: bool) -> None:
    path = tmp_path / "trainer.log"
    path.write_text("a\n" + "b" * 25 + "\n")
    read, part = "", read_log(path, 0, max_bytes=10, is_over=is_over)
    while part.has_more:
        read, part = read + part.text, read_log(path, part.next_offset, max_bytes=10, is_over=is_over)
    assert read + part.text == path.read_text()


def test_a_log_is_followed_to_its_end_and_then_there_is_nothing(
    service: Service, server: str, log: tuple[str, list[str]]
) -> None:
    job_id, lines = log
    service.client.post(f"{JOBS}/{job_id}/cancel")
    url = f"{server}{JOBS}/{job_id}/logs/stream"
    told = read_stream(url, headers_of(service))
    assert "".join(data["text"] for name, _, data in told if name == "log") == "".join(lines)
    assert told[-1][0] == "end"
    last = told[-2][1]
    assert service.client.get(f"{JOBS}/{job_id}/logs/stream", params={"after": last}).status_code == 204
    middle = told[0][1]
    rest = read_stream(url, headers_of(service) | {"Last-Event-ID": str(middle)})
    assert rest == told[1:]


def test_metrics_come_as_a_table(service: Service) -> None:
    job_id = service.create_job()["id"]
    add_steps(service, job_id, {1: {"a": 1.5, "b": None}, 2: {"a": 2.5, "c": 3.0}})
    answer = service.client.get(f"{JOBS}/{job_id}/metrics.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert [(row["kind"], row["step"], row["a"], row["b"], row["c"]) for row in rows] == [
        ("train", "1", "1.5", "", ""),
        ("train", "2", "2.5", "", "3.0"),
    ]
    chosen = service.client.get(f"{JOBS}/{job_id}/metrics.csv", params={"keys": "c"}).text
    assert chosen.splitlines()[0] == "kind,step,time,attempt,c"


def test_a_job_without_metrics_is_a_table_without_rows(service: Service) -> None:
    text = service.client.get(f"{JOBS}/{service.create_job()['id']}/metrics.csv").text
    assert text == "kind,step,time,attempt\r\n"


def test_jobs_are_compared_key_by_key_in_the_order_asked_for(service: Service) -> None:
    first, second = service.create_job(name="one")["id"], service.create_job()["id"]
    add_steps(service, first, {step: {"a": math.sin(step), "b": 0.0} for step in range(1, 40)})
    add_steps(service, second, {1: {"a": 7.0}})
    query: dict[str, str | int] = {"jobs": f"{second},{first}", "keys": "a", "max_points": 10}
    answer = service.client.get("/v1/fine_tuning/metrics/compare", params=query).json()
    assert [series["fine_tuning_job_id"] for series in answer["data"]] == [second, first]
    assert answer["data"][0]["data"][0]["values"] == {"a": 7.0}
    thinned = answer["data"][1]
    assert (thinned["name"], thinned["num_points"], thinned["algorithm"]) == ("one", 39, "stapo")
    assert len(thinned["data"]) <= 12


def test_a_comparison_says_what_the_lists_say_and_builds_no_object_per_step(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, built = service.create_job()["id"], []
    add_steps(service, job_id, {step: {"a": step / 2, "b": None} | ({"c": 1.0} if step % 2 else {}) for step in (1, 2)})
    monkeypatch.setattr(MetricsPoint, "of", lambda row: built.append(row))
    query = {"jobs": job_id, "keys": "c,b,none"}
    [series] = service.client.get("/v1/fine_tuning/metrics/compare", params=query).json()["data"]
    listed = service.client.get(f"{JOBS}/{job_id}/metrics", params={"keys": "c,b,none"}).json()
    assert [point["values"] for point in series["data"]] == [{"b": None, "c": 1.0}, {"b": None}]
    assert series["data"] == listed["data"]
    assert built == []


def test_a_comparison_with_a_job_of_another_tenant_is_refused(service: Service) -> None:
    job_id = service.create_job()["id"]
    answer = service.stranger.get("/v1/fine_tuning/metrics/compare", params={"jobs": job_id, "keys": "a"})
    assert (answer.status_code, answer.json()["param"]) == (404, "jobs")
    empty = service.client.get("/v1/fine_tuning/metrics/compare", params={"jobs": ",", "keys": "a"})
    assert empty.status_code == 422
