"""What a probe is told: everything, or what traffic needs; in fixed words, and without a wait for those beside it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.dispatch import Dispatcher
from api.pace import NUM_QUICK, NUM_SLOW
from api.readiness import KEPT_S
from api.store import leases
from tests.api.conftest import Service
from tests.api.test_pace import Crowd, until


def test_without_a_worker_no_job_can_run_and_the_api_still_takes_traffic(service: Service) -> None:
    lacking, traffic = service.client.get("/readyz"), service.client.get("/readyz?for=traffic")
    assert (lacking.status_code, traffic.status_code) == (503, 200)
    assert lacking.json() == {
        "status": "unavailable",
        "checks": {
            "database": "ok",
            "broker": "ok",
            "storage": "ok",
            "worker": "gave no sign of life in the last 60 s",
        },
    }
    assert traffic.json() == {"status": "ok", "checks": {"database": "ok", "storage": "ok"}}
    with service.database.transaction() as session:
        leases.beat(session, "w", slots=1)
    time.sleep(KEPT_S)
    assert service.client.get("/readyz").json()["status"] == "ok"
    assert service.client.get("/readyz?for=fun").status_code == 422


@pytest.mark.parametrize("error", [RuntimeError(), OSError("redis://stapo@secret.internal:6379")])
def test_whatever_a_part_says_of_its_fault_is_told_in_the_log_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def ping(_: Dispatcher) -> None:
        raise error

    monkeypatch.setattr(Dispatcher, "ping", ping)
    answer = service.client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["broker"]) == (503, "does not answer")
    assert repr(error) in capsys.readouterr().out


def test_any_number_of_probes_ask_a_part_that_hangs_once_and_hold_up_nobody(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, asked = Crowd(), []

    def ping(_: Dispatcher) -> None:
        asked.append(1)
        crowd.enter()

    monkeypatch.setattr(Dispatcher, "ping", ping)
    with ThreadPoolExecutor(2 * (NUM_QUICK + NUM_SLOW)) as callers:
        probes = [callers.submit(service.client.get, "/readyz") for _ in range(NUM_QUICK + NUM_SLOW)]
        try:
            until(lambda: crowd.inside > 0)
            time.sleep(0.5)  # whoever could ask besides has asked
            for path in ("/v1/files", "/readyz?for=traffic"):
                assert callers.submit(service.client.get, path).result(20.0).status_code == 200
            assert not any(probe.done() for probe in probes)
        finally:
            crowd.may_go.set()
        assert {probe.result().json()["checks"]["broker"] for probe in probes} == {"ok"}
    assert len(asked) == 1
