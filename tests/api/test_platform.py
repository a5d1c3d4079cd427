from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from api.main import create_app
from api.store import leases
from tests.api.conftest import ROWS, Service, to_jsonl

JOBS = "/v1/fine_tuning/jobs"


def claim(service: Service) -> None:
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=2)
        assert leases.claim_job(session, worker="w", lease_s=60.0)


def test_the_queue_tells_how_busy_it_is_and_where_the_tenants_own_jobs_stand(service: Service) -> None:
    service.create_job()
    claim(service)
    late, urgent = service.create_job(), service.create_job()
    service.client.patch(f"{JOBS}/{urgent['id']}", json={"priority": 1})
    queue = service.client.get("/v1/queue").json()
    assert (queue["workers"], queue["slots"], queue["running"], queue["waiting"]) == (1, 2, 1, 2)
    assert [(job["id"], job["position"]) for job in queue["data"]] == [(urgent["id"], 1), (late["id"], 2)]
    theirs = service.stranger.get("/v1/queue").json()
    assert (theirs["waiting"], theirs["data"]) == (2, [])


def test_workers_are_listed_with_the_jobs_they_hold_and_strangers_see_no_names(service: Service) -> None:
    job = service.create_job()
    claim(service)
    with service.database.transaction() as session:
        leases.beat(session, "idle", slots=1)
        session.execute(text("UPDATE worker_beats SET seen_at = now() - interval '1 h' WHERE name = 'idle'"))
        lease_until = session.execute(text("SELECT extract(epoch FROM lease_until) FROM jobs")).scalar_one()
    idle, busy = service.client.get("/v1/workers").json()["data"]
    assert (idle["name"], idle["is_alive"], idle["leases"]) == ("idle", False, [])
    assert (busy["name"], busy["is_alive"], busy["slots"]) == ("w", True, 2)
    [lease] = busy["leases"]
    assert (lease["fine_tuning_job_id"], lease["state"], lease["attempt"]) == (job["id"], "starting", 1)
    assert lease["lease_until"] == int(lease_until)
    assert service.stranger.get("/v1/workers").json()["data"][1]["leases"][0]["fine_tuning_job_id"] is None


def test_usage_adds_up_what_jobs_took_and_what_is_kept(service: Service) -> None:
    job = service.create_job()
    service.add_checkpoint(job["id"], 1)
    service.add_checkpoint(job["id"], 2)
    with service.database.transaction() as session:
        change = (
            "UPDATE jobs SET trained_tokens = 70, step = 3, started_at = now() - interval '90 s', finished_at = now()"
        )
        session.execute(text(change))
    service.create_job()
    usage = service.client.get("/v1/usage").json()
    assert (usage["num_jobs"], usage["trained_tokens"], usage["steps"]) == (2, 70, 3)
    assert usage["running_s"] == pytest.approx(90.0)
    assert usage["jobs"] == {"queued": 2}
    assert usage["stored_file_bytes"] == 2 * len(to_jsonl(ROWS))
    assert usage["stored_checkpoint_bytes"] == 8  # two checkpoints of two files of two bytes
    assert [model["model"] for model in usage["models"]] == ["tiny"]
    assert service.client.get("/v1/usage", params={"created_before": 1}).json()["num_jobs"] == 0
    assert service.stranger.get("/v1/usage").json()["stored_checkpoint_bytes"] == 0


def test_prometheus_reads_requests_by_route_and_jobs_by_state(service: Service) -> None:
    job = service.create_job()
    for _ in range(3):
        service.client.get(f"{JOBS}/{job['id']}")
    service.client.get(f"{JOBS}/ftjob-0")
    families = text_string_to_metric_families(service.client.get("/metrics").text)
    samples = {(each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples}
    route = ("route", "/v1/fine_tuning/jobs/{job_id}")
    assert samples["stapo_http_requests_total", ("method", "GET"), route, ("status", "200")] == 3
    assert samples["stapo_http_requests_total", ("method", "GET"), route, ("status", "404")] == 1
    assert samples["stapo_jobs", ("state", "queued")] == 1
    assert not any(job["id"] in str(name) for name in samples)


def test_fine_tuned_models_and_checkpoints_are_the_tenants_models(service: Service) -> None:
    job = service.create_job(suffix="mine")
    service.add_checkpoint(job["id"], 1)
    service.add_checkpoint(job["id"], 2, final=True)
    name = service.client.get(f"{JOBS}/{job['id']}").json()["fine_tuned_model"]
    listed = [model["id"] for model in service.client.get("/v1/models").json()["data"]]
    assert listed == ["tiny", name, f"{name}:ckpt-step-2", f"{name}:ckpt-step-1"]
    for model in listed:
        assert service.client.get(f"/v1/models/{model}").json()["id"] == model
    assert [model["id"] for model in service.stranger.get("/v1/models").json()["data"]] == ["tiny"]
    assert service.stranger.get(f"/v1/models/{name}").status_code == 404


def test_a_quota_that_is_used_up_is_named(service: Service) -> None:
    file = service.upload()
    small = {"max_live_jobs": 1, "max_stored_bytes": file["bytes"] + 10}
    key = service.client.headers["authorization"]
    with TestClient(create_app(service.settings.model_copy(update=small)), headers={"Authorization": key}) as client:
        body = service.job_body(training_file=file["id"])
        first, second = client.post(JOBS, json=body), client.post(JOBS, json=body)
        client.post(f"{JOBS}/{first.json()['id']}/cancel")
        third = client.post(JOBS, json=body)
        upload = client.post("/v1/files", files={"file": ("t.jsonl", to_jsonl(ROWS))}, data={"purpose": "fine-tune"})
    assert [answer.status_code for answer in (first, second, third, upload)] == [201, 429, 201, 429]
    assert second.json()["code"] == upload.json()["code"] == "quota_exceeded"
    assert second.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_that_draw_the_api_load_nothing_from_elsewhere(service: Service, page: str) -> None:
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", service.client.get(page).text)
    assert any(address.endswith(".js") for address in addresses)
    assert [(address, service.client.get(address).status_code) for address in addresses] == [
        (address, 200) for address in addresses if address.startswith("/")
    ]
