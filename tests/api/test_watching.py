from __future__ import annotations

import threading
import time

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from api.routes.metrics import MAX_POINTS
from api.store import jobs, keys
from api.store.thinning import Curve, survivors
from tests.api.conftest import Service
from tests.api.streams import headers_of, read_stream
from tests.api.writer import Writer


@pytest.fixture
def writer(service: Service) -> Writer:
    return Writer(service.database, service.create_job()["id"])


def test_a_stream_replays_follows_and_ends(service: Service, writer: Writer, server: str) -> None:
    writer.step(1)
    writer.step(2)

    def go_on() -> None:
        time.sleep(0.3)
        writer.step(3)
        time.sleep(0.2)
        writer.finish()

    threading.Thread(target=go_on).start()
    told = read_stream(f"{server}/v1/fine_tuning/jobs/{writer.job_id}/metrics/stream", headers_of(service))
    assert [data["step"] for name, _, data in told if name == "metrics"] == [1, 2, 3]
    assert told[-1][0] == "end"
    assert told[-1][2]["state"] == "succeeded"


def test_a_reader_that_comes_back_sees_each_row_once(service: Service, writer: Writer, server: str) -> None:
    for step in range(1, 21):
        writer.step(step)
    url = f"{server}/v1/fine_tuning/jobs/{writer.job_id}/metrics/stream"
    writer.finish()
    seen: list[int] = []
    last = 0
    while True:
        answer = httpx2.get(f"{url}?after={last}", headers=headers_of(service))
        if answer.status_code == 204:
            break
        cut = last + 7
        told = read_stream(url, headers_of(service) | {"Last-Event-ID": str(last)}, stop_at=cut)
        rows = [(seq, data["step"]) for name, seq, data in told if name == "metrics" and seq is not None]
        seen += [step for _, step in rows]
        last = rows[-1][0]
    assert seen == list(range(1, 21))


def test_a_finished_job_tells_a_reader_not_to_come_back(service: Service, writer: Writer) -> None:
    writer.finish()
    path = f"/v1/fine_tuning/jobs/{writer.job_id}"
    assert service.client.get(f"{path}/metrics/stream").status_code == 204
    last = service.client.get(f"{path}/metrics").json()["last_seq"]
    assert service.client.get(f"{path}/events/stream", headers={"Last-Event-ID": str(last)}).status_code == 204


def test_the_event_stream_tells_messages_only(service: Service, writer: Writer, server: str) -> None:
    writer.step(1)
    writer.finish()
    told = read_stream(f"{server}/v1/fine_tuning/jobs/{writer.job_id}/events/stream", headers_of(service))
    assert {name for name, _, _ in told} == {"event", "state", "end"}
    assert [data["kind"] for name, _, data in told if name == "event"] == ["created", *["state"] * 4]


def test_a_ticket_opens_what_is_read_of_its_own_job_and_nothing_else(
    service: Service, writer: Writer, server: str
) -> None:
    other = service.create_job()["id"]
    ticket = service.client.post(f"/v1/fine_tuning/jobs/{writer.job_id}/stream_ticket").json()["ticket"]
    writer.step(1)
    writer.finish()
    root = f"{server}/v1/fine_tuning/jobs"
    told = read_stream(f"{root}/{writer.job_id}/metrics/stream?ticket={ticket}", {})
    assert told[-1][0] == "end"
    assert httpx2.get(f"{root}/{other}/metrics/stream?ticket={ticket}").status_code == 404
    assert httpx2.get(f"{root}/{writer.job_id}?ticket={ticket}").json()["id"] == writer.job_id
    assert httpx2.get(f"{root}/{writer.job_id}/checkpoints?ticket={ticket}").json()["data"] == []
    assert httpx2.get(f"{root}/{other}?ticket={ticket}").status_code == 404
    assert httpx2.get(f"{root}/{other}/checkpoints?ticket={ticket}").status_code == 404
    assert httpx2.get(f"{root}?ticket={ticket}").status_code == 401
    assert httpx2.post(f"{root}/{writer.job_id}/cancel?ticket={ticket}").status_code == 401
    assert httpx2.get(f"{root}/{writer.job_id}/metrics?ticket=wrong").status_code == 401


def test_an_expired_ticket_is_refused(service: Service, writer: Writer) -> None:
    with service.database.transaction() as session:
        job = jobs.get_job(session, "ours", writer.job_id)
        ticket, _ = keys.create_ticket(session, job, keys.Caller("ours"), lifetime_s=-1.0)
    answer = service.stranger.get(f"/v1/fine_tuning/jobs/{writer.job_id}/metrics?ticket={ticket}")
    assert (answer.status_code, answer.json()["code"]) == (401, "ticket_expired")


def test_a_page_of_another_origin_may_read_only_when_it_is_listed(service: Service) -> None:
    settings = service.settings.model_copy(update={"cors_origins": "http://dash:8501"})
    with TestClient(create_app(settings)) as client:
        listed = client.get("/healthz", headers={"Origin": "http://dash:8501"})
        other = client.get("/healthz", headers={"Origin": "http://evil"})
    assert listed.headers["access-control-allow-origin"] == "http://dash:8501"
    assert "access-control-allow-origin" not in other.headers


def test_metrics_are_read_by_key_kind_and_step(service: Service, writer: Writer) -> None:
    for step in range(1, 6):
        writer.step(step, **{"mask/ppm": 10.0 * step})
    answer = service.client.get(
        f"/v1/fine_tuning/jobs/{writer.job_id}/metrics",
        params={"keys": "mask/ppm", "kind": "train", "from_step": 2, "to_step": 4},
    ).json()
    assert [(point["step"], point["values"]) for point in answer["data"]] == [
        (step, {"mask/ppm": 10.0 * step}) for step in (2, 3, 4)
    ]
    assert answer["num_points"] == 3


def test_a_step_that_is_written_twice_is_kept_once(service: Service, writer: Writer) -> None:
    writer.step(1)
    writer.step(1)
    assert len(service.client.get(f"/v1/fine_tuning/jobs/{writer.job_id}/metrics").json()["data"]) == 1


def test_thinning_keeps_the_ends_and_a_spike_of_a_single_step(service: Service, writer: Writer) -> None:
    writer.steps(1000, lambda step: {"a": 9.0 if step == 337 else -9.0 if step == 612 else 0.0, "b": None})
    path = f"/v1/fine_tuning/jobs/{writer.job_id}/metrics"
    for named in ({"keys": "a,b"}, {}):
        answer = service.client.get(path, params={"max_points": 50, **named}).json()
        kept = {point["step"]: point["values"]["a"] for point in answer["data"]}
        assert {1, 337, 612, 1000} <= set(kept)
        assert (kept[337], kept[612], kept[1000]) == (9.0, -9.0, 0.0)
        assert len(kept) <= 52
        assert answer["num_points"] == 1000


def test_a_run_of_more_steps_than_an_answer_holds_is_thinned_unasked(service: Service, writer: Writer) -> None:
    last = MAX_POINTS + 500
    steps = text("""
        INSERT INTO step_metrics (job_id, kind, step, seq, fence, created_at, values)
        SELECT :job, 'train', step, 1000 + step, 1, now(),
            jsonb_build_object('a', CASE step WHEN 7777 THEN 9 ELSE 0 END)
        FROM generate_series(1, :last) AS step""")
    with service.database.transaction() as session:
        session.execute(steps, {"job": writer.job_id, "last": last})
        session.execute(text("UPDATE jobs SET step = :last, last_seq = 1000 + :last"), {"last": last})
    path = f"/v1/fine_tuning/jobs/{writer.job_id}"
    answer = service.client.get(f"{path}/metrics").json()
    kept = {point["step"]: point["values"]["a"] for point in answer["data"]}
    assert len(kept) <= MAX_POINTS
    assert (kept[1], kept[7777], kept[last], answer["num_points"]) == (0, 9, 0, last)
    assert len(service.client.get(f"{path}/metrics.csv").text.splitlines()) == 1 + last


def test_of_many_curves_each_keeps_its_spikes_wherever_they_stand() -> None:
    curves = np.random.default_rng(0).random((40, 10_000))
    places = np.arange(40) * 250 + 7
    curves[np.arange(40), places] = 50.0
    curves[3, 1:] = np.nan
    kept = survivors([Curve.of(curve, np.arange(10_000)) for curve in curves], [0, 9_999], 1000)
    assert {*places.tolist(), 0, 9_999} - {757} <= set(kept.tolist())
    assert len(kept) <= 1000
