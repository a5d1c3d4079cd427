"""A click that was not answered, and the click after it: one run, from the form and from a fork."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from client.http import ApiUnreachable, Client
from client.objects import JobObject
from dashboard import service
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed

pytestmark = pytest.mark.usefixtures("pages")


def lose_first_answer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The API does what it is asked, and the first answer is lost on its way."""
    ask: Callable[..., JobObject] = getattr(Client, name)
    answers: list[JobObject] = []

    def asked(self: Client, *arguments: Any, **named: Any) -> JobObject:
        answers.append(ask(self, *arguments, **named))
        if len(answers) == 1:
            raise ApiUnreachable(self.base_url, "timed out")
        return answers[-1]

    monkeypatch.setattr(Client, name, asked)


def test_a_submission_that_timed_out_and_is_sent_again_is_one_run_and_the_next_another(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    file_id = feed.client.upload_file(problems)["id"]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    app.selectbox(key="training_file").select(file_id).run()
    app.number_input(key="train_batch_num_prompts").set_value(4).run()
    app.text_input(key="name").input("sent-twice").run()
    lose_first_answer(monkeypatch, "create_job")

    app.button(key="submit").click().run()
    assert "does not answer" in app.warning[0].value
    service.disconnect()  # the few seconds in which a silent API is not asked again are over
    app.button(key="submit").click().run()

    assert not app.exception
    assert len(named(feed, "sent-twice")) == 1
    app.switch_page(str(Path("views") / "new.py")).run()
    assert app.text_input(key="name").value == "sent-twice"
    app.button(key="submit").click().run()
    assert len(named(feed, "sent-twice")) == 2


def test_a_fork_that_timed_out_and_is_sent_again_is_one_run(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    run = feed.begin("forked-twice")
    run.take_steps(3)
    run.save(b"weights")
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["run"] = run.id
    app.switch_page(str(Path("views") / "run.py")).run()
    app.text_input(key="fork_name").input("fork-sent-twice")
    lose_first_answer(monkeypatch, "fork_job")

    app.button(key="fork_now").click().run()
    assert "does not answer" in app.error[0].value.replace("\\", "") or "timed out" in app.error[0].value
    service.disconnect()
    app.button(key="fork_now").click().run()

    assert not app.exception
    assert len(named(feed, "fork-sent-twice")) == 1


def named(feed: Feed, name: str) -> list[JobObject]:
    """The runs of that name, cancelled lest another test's claim finds them."""
    found = [job for job in feed.client.list_jobs(limit=100)["data"] if job["suffix"] == name or job["name"] == name]
    for job in found:
        if job["state"] == "queued":
            feed.client.cancel_job(job["id"])
    return found
