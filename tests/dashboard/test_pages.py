"""The pages against a real API, in the test's own process."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from streamlit.testing.v1 import AppTest

from api.lifecycle import JobState
from client.http import ApiUnreachable, Client
from dashboard import service
from tests.conftest import find_free_port
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed

pytestmark = pytest.mark.usefixtures("pages")


def open_runs(**query: str) -> AppTest:
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def open_run(job_id: str | None, **query: str) -> AppTest:
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    for name, value in query.items():
        app.query_params[name] = value
    if job_id is not None:
        app.query_params["run"] = job_id
    return app.switch_page(str(Path("views") / "run.py")).run()


def texts(app: AppTest) -> str:
    parts = [*app.title, *app.info, *app.error, *app.warning, *app.markdown, *app.caption]
    return "\n".join(str(part.value) for part in parts)


def names(app: AppTest) -> list[str]:
    return list(app.dataframe[0].value["Run"]) if app.dataframe else []


def test_the_list_shows_a_run_with_its_state_step_and_last_figures(feed: Feed) -> None:
    feed.begin("listed", num_steps=80).take_steps(20)

    app = open_runs(search="listed")

    assert not app.exception
    [row] = app.dataframe[0].value.to_dict("records")
    assert row["Run"] == "listed"
    assert row["State"] == ["Running"]
    assert row["Step"] == "20 / 80"
    assert row["Progress"] == 25.0
    assert row["Reward"] == pytest.approx(0.632, abs=0.001)  # 1 - 1/e
    assert len(row["Reward curve"]) == 20
    shown = json.loads(app.dataframe[0].proto.columns)
    assert [shown[name].get("label", name) for name in ("Reward curve", "Entropy curve")] == [
        "Reward curve",
        "Entropy curve",
    ]
    assert row["Mask (ppm)"] == 0.0


def test_a_waiting_run_says_its_place_in_the_queue(feed: Feed) -> None:
    feed.submit("waiting")

    app = open_runs(search="waiting")

    [row] = app.dataframe[0].value.to_dict("records")
    assert row["State"] == ["Queued"]
    assert row["Time left"].startswith("no. ")


def test_the_filter_is_read_from_the_address(feed: Feed) -> None:
    feed.begin("works").take_steps(1)
    feed.begin("ended").settle(JobState.FAILED, error=None)

    shown = names(open_runs(status="Failed"))

    assert "ended" in shown
    assert "works" not in shown


def test_a_filter_that_nothing_passes_says_so() -> None:
    app = open_runs(search="no such name")

    assert not app.dataframe
    assert "No run matches" in texts(app)


def test_a_list_that_shows_not_all_that_it_found_says_so(feed: Feed) -> None:
    for _ in range(53):
        feed.client.cancel_job(feed.submit("crowd"))

    app = open_runs(search="crowd")

    assert len(names(app)) == 50
    assert "50 of 53 shown" in texts(app)


def test_a_silent_api_gives_a_banner_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("STAPO_API_URL", f"http://127.0.0.1:{find_free_port()}")
    service.disconnect()

    runs, run = open_runs(), open_run("ftjob-any")

    service.disconnect()
    for app in (runs, run):
        assert not app.exception
        assert "The API does not answer." in texts(app)
    assert "tries again by itself" in texts(runs)
    assert "tries again by itself" not in texts(run)  # it stands still until somebody asks


def test_events_that_cannot_be_read_are_not_said_to_be_none(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    run = feed.begin("events-unread")

    def unreachable(self: Client, *_: object, **__: object) -> None:
        raise ApiUnreachable(self.base_url, "timed out")

    monkeypatch.setattr(Client, "list_events", unreachable)
    app = open_run(run.id)

    assert not app.dataframe
    assert "Events can be listed when the API answers again." in texts(app)


def test_a_run_that_is_not_there_is_said_not_to_be(feed: Feed) -> None:
    assert "No run is chosen" in texts(open_run(None))
    assert "ftjob-nowhere" in texts(open_run("ftjob-nowhere")).replace("\\", "")


def test_a_failed_run_names_its_reason_and_the_field_at_fault(feed: Feed) -> None:
    run = feed.begin("fails")
    error = {"code": "non_finite_loss", "message": "The loss is NaN", "param": "optimizer.learning_rate"}
    run.settle(JobState.FAILED, error=error)

    shown = texts(open_run(run.id)).replace("\\", "")

    assert "The loss is NaN (field optimizer.learning_rate)" in shown


def test_a_run_is_paused_and_resumed_from_its_page(feed: Feed) -> None:
    job_id = feed.submit("pauses")
    app = open_run(job_id)

    app.button(key="pause_job_now").click().run()
    assert feed.client.get_job(job_id)["state"] == JobState.PAUSED.value
    app.button(key="resume_job_now").click().run()

    assert feed.client.get_job(job_id)["state"] == JobState.QUEUED.value


def test_a_run_is_cancelled_only_by_the_button_that_confirms_it(feed: Feed) -> None:
    job_id = feed.submit("cancels")
    app = open_run(job_id)
    assert feed.client.get_job(job_id)["state"] == JobState.QUEUED.value

    app.button(key="cancel_job_now").click().run()

    assert feed.client.get_job(job_id)["state"] == JobState.CANCELLED.value


def test_a_refused_action_is_told_and_breaks_nothing(feed: Feed) -> None:
    job_id = feed.submit("gone")
    app = open_run(job_id)
    feed.client.cancel_job(job_id)

    app.button(key="pause_job_now").click().run()

    assert not app.exception
    assert "cancelled" in app.toast[0].value


def test_events_are_listed_newest_first_as_plain_text(feed: Feed) -> None:
    run = feed.begin("events")
    run.warn("<b>odd</b> *text*")

    app = open_run(run.id)

    messages = list(app.dataframe[0].value["Message"])
    assert messages[0] == "<b>odd</b> *text*"
    assert "Training begins" in messages[1]
    assert app.dataframe[0].value["Time (UTC)"][0].tzname() == "UTC"


def test_checkpoints_are_listed_with_digest_and_links(feed: Feed) -> None:
    run = feed.begin("checkpoints")
    run.take_steps(3)
    digest = run.save(b"abc", final=True)

    app = open_run(run.id, tab="Checkpoints")

    [file] = [line for line in texts(app).splitlines() if "model" in line and "safetensors" in line]
    assert digest in file
    assert "/files/model.safetensors?ticket=" in file
    assert "Step 3" in texts(app)


def test_runs_are_compared_as_the_address_says(feed: Feed) -> None:
    first, second = feed.begin("left"), feed.begin("right", algorithm="grpo")
    first.take_steps(4)
    second.take_steps(6)
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["runs"] = [f"left · {first.id[-6:]}", f"right · {second.id[-6:]}"]

    app.switch_page(str(Path("views") / "compare.py")).run()

    assert not app.exception
    figures, differing = (table.value for table in app.dataframe)
    assert list(figures["Algorithm"]) == ["stapo", "grpo"]
    assert list(figures["Step"]) == ["4 / 40", "6 / 40"]
    assert "config.algorithm.kind" in list(differing["Setting"])
    assert len(app.get("echarts_chart")) == 6


def test_the_address_of_a_comparison_names_runs_by_id_however_old_and_says_which_is_not_there(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = feed.begin("old-one"), feed.begin("new-one")
    monkeypatch.setattr(service, "find_jobs", lambda **_: ([feed.client.get_job(new.id)], True))
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["runs"] = [old.id, new.id, "ftjob-nowhere"]

    app.switch_page(str(Path("views") / "compare.py")).run()

    assert not app.exception
    assert list(app.dataframe[0].value["Run"]) == [f"old-one · {old.id[-6:]}", f"new-one · {new.id[-6:]}"]
    assert "ftjob-nowhere" in texts(app).replace("\\", "")
    assert app.query_params["runs"] == [old.id, new.id]


def test_the_end_of_the_trainers_log_is_shown_as_it_was_printed(feed: Feed) -> None:
    run = feed.begin("logs")
    run.log("first line\n<b>second</b> *line*\n\x1b[1mthird\u202e\n")

    app = open_run(run.id, tab="Log")

    assert not app.exception
    assert app.text[0].value.splitlines() == ["first line", "<b>second</b> *line*", "⟨U+001B⟩[1mthird⟨U+202E⟩"]


def test_the_manifest_names_the_data_and_links_to_the_numbers(feed: Feed) -> None:
    run = feed.begin("manifest")
    run.take_steps(2)

    app = open_run(run.id, tab="Manifest")

    assert not app.exception
    shown = json.loads(app.json[0].value)
    assert shown["training_file"]["sha256"] == feed.client.get_manifest(run.id)["training_file"]["sha256"]
    link = app.get("link_button")[0].proto.url
    table = httpx2.get(link).text.splitlines()
    assert table[0].startswith("kind,step,time,attempt")
    assert [line.split(",")[1] for line in table[1:]] == ["1", "2"]


def test_a_run_is_forked_from_a_checkpoint_with_what_was_changed(feed: Feed) -> None:
    run = feed.begin("forks")
    run.take_steps(3)
    run.save(b"weights")
    [checkpoint] = feed.client.list_checkpoints(run.id)["data"]
    app = open_run(run.id)

    app.text_input(key="fork_name").input("other-way")
    app.number_input(key="fork_tau_p").set_value(0.01)
    app.text_area(key="fork_patch").input('{"optimizer": {"weight_decay": 0.2}}')
    app.button(key="fork_now").click().run()

    assert not app.exception
    assert not app.error, app.error[0].value
    [job] = [job for job in feed.client.list_jobs()["data"] if job["name"] == "other-way"]
    feed.client.cancel_job(job["id"])
    config = job["method"]["reinforcement"]["config"]
    assert job["base_checkpoint"] == checkpoint["id"]
    assert config["algorithm"]["tau_p"] == 0.01
    assert config["optimizer"]["weight_decay"] == 0.2
    assert config["num_steps"] == 40


def test_a_file_and_a_checkpoint_beyond_the_newest_twenty_can_be_chosen(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "old.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    oldest = feed.client.upload_file(problems)["id"]
    for _ in range(20):
        feed.client.upload_file(problems)
    run = feed.begin("many-checkpoints")
    for _ in range(21):
        run.take_steps(1)
        run.save(b"weights")

    new = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    new.selectbox(key="training_file").select(oldest).run()
    shown = open_run(run.id, tab="Checkpoints")

    assert not new.exception
    assert not new.button(key="submit").disabled
    assert len(shown.selectbox(key="fork_checkpoint").options) == 21
    assert "**Step 1**" in texts(shown)
