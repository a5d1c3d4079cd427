from __future__ import annotations

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from client.http import ApiUnreachable
from dashboard import service
from tests.client.service import Answer, Asked, serve
from tests.conftest import find_free_port
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed

pytestmark = pytest.mark.usefixtures("pages")


def open_run(job_id: str, ticket: service.Ticket) -> str:
    """The ticket that a page holds after it was opened with an older one."""
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["run"] = job_id
    app.session_state["tickets"] = {job_id: ticket}
    app.switch_page(str(Path("views") / "run.py")).run()
    assert not app.exception
    held: service.Ticket = app.session_state["tickets"][job_id]
    return held.text


def test_a_page_keeps_its_ticket_while_that_is_good_for_a_while_yet(feed: Feed) -> None:
    run = feed.begin("keeps-its-ticket")
    ticket = service.Ticket("held", expires_at=time.time() + 600)

    assert open_run(run.id, ticket) == "held"


def test_a_page_that_stays_open_gets_a_new_ticket_before_the_old_one_lapses(feed: Feed) -> None:
    run = feed.begin("renews-its-ticket")
    ticket = service.Ticket("held", expires_at=time.time() + 60)

    assert open_run(run.id, ticket) != "held"


def test_while_the_api_is_silent_only_the_first_caller_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAPO_API_URL", f"http://127.0.0.1:{find_free_port()}")
    service.disconnect()
    with pytest.raises(ApiUnreachable), service.api() as client:
        client.get_job("ftjob-any")

    began = time.monotonic()
    with pytest.raises(ApiUnreachable), service.api() as client:
        client.get_job("ftjob-any")

    assert time.monotonic() - began < 0.5
    service.disconnect()


def test_an_answer_that_is_slow_concerns_its_own_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Answer:
        time.sleep(3.0 if asked.path.endswith("slow") else 0.0)
        return Answer(body=b'{"id": "ftjob-1"}')

    with serve(answer) as api:
        monkeypatch.setenv("STAPO_API_URL", api.url)
        monkeypatch.setattr("dashboard.service._PATIENCE_S", 0.5)
        service.disconnect()
        with pytest.raises(ApiUnreachable), service.api() as client:
            client.get_job("slow")
        with service.api() as client:
            assert client.get_job("ftjob-1")["id"] == "ftjob-1"
    service.disconnect()


def test_the_browser_is_given_the_public_address_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAPO_API_URL", "http://api:8000/")
    assert service.job_url("ftjob-1") == "http://api:8000/v1/fine_tuning/jobs/ftjob-1"

    monkeypatch.setenv("STAPO_PUBLIC_API_URL", "https://stapo.example/")

    assert service.job_url("ftjob-1") == "https://stapo.example/v1/fine_tuning/jobs/ftjob-1"
    link = service.download_url("ftckpt-1", service.Ticket("t/1", 0.0), "a b/c.bin")
    assert link == "https://stapo.example/v1/fine_tuning/checkpoints/ftckpt-1/files/a%20b/c.bin?ticket=t%2F1"


def test_a_dashboard_without_a_key_says_which_setting_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STAPO_API_KEY")
    for path, said in (("", "set STAPO_API_KEY or STAPO_API_KEY_FILE"), (str(tmp_path / "gone"), "cannot be read")):
        monkeypatch.setenv("STAPO_API_KEY_FILE", path)
        service.disconnect()

        app = AppTest.from_file(str(DASHBOARD), default_timeout=20).run()

        assert not app.exception
        assert said in app.error[0].value
