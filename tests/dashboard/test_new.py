"""The form of a new run against a real API, in the test's own process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed
from tests.dashboard.test_pages import texts

pytestmark = pytest.mark.usefixtures("pages")


def test_a_run_is_submitted_from_the_form_with_what_was_changed_in_it(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    assert not app.exception
    assert app.button(key="submit").disabled

    app.selectbox(key="model").select("other").run()
    app.text_input(key="name").input("from-the-form").run()
    app.file_uploader(key="training_upload").set_value(("sums.jsonl", problems.read_bytes(), "application/jsonl")).run()
    app.number_input(key="algorithm_stapo_tau_p").set_value(0.01).run()
    app.number_input(key="train_batch_num_prompts").set_value(4).run()
    app.button(key="submit").click().run()

    assert not app.exception
    [job] = [job for job in feed.client.list_jobs()["data"] if job["suffix"] == "from-the-form"]
    feed.client.cancel_job(job["id"])
    config = job["method"]["reinforcement"]["config"]
    [file] = [file for file in feed.client.list_files()["data"] if file["id"] == job["training_file"]]
    assert job["model"] == "other"
    assert file["sha256"] == hashlib.sha256(problems.read_bytes()).hexdigest()
    assert config["algorithm"]["tau_p"] == 0.01
    assert config["batch"]["num_prompts"] == 4
    assert config["num_steps"] == 2  # 8 rows by 4 a step
    assert job["method"]["reinforcement"]["grader"]["reference"] == "{{item.answer}}"


def test_one_click_on_plus_leaves_a_number_near_what_it_was() -> None:
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()

    app.number_input(key="train_optimizer_learning_rate").increment().run()
    app.number_input(key="algorithm_stapo_tau_p").decrement().run()

    assert app.number_input(key="train_optimizer_learning_rate").value == pytest.approx(1.1e-6)
    assert app.number_input(key="algorithm_stapo_tau_p").value == pytest.approx(0.0019)


def test_a_form_begins_with_named_settings_and_says_what_is_changed_in_them(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    file_id = feed.client.upload_file(problems)["id"]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["preset"] = "demo"
    app.switch_page(str(Path("views") / "new.py")).run()
    app.selectbox(key="training_file").select(file_id).run()
    assert app.number_input(key="demo_train_batch_num_prompts").value == 32

    app.number_input(key="demo_train_batch_num_prompts").set_value(4).run()
    app.button(key="dry_run").click().run()

    assert not app.exception
    _, preview = app.session_state["preview"]
    config = preview["method"]["reinforcement"]["config"]
    assert config["algorithm"]["entropy_scope"] == "all_tokens"
    assert config["batch"]["num_prompts"] == 4
    assert config["optimizer"]["schedule"] == "linear"
    assert config["num_steps"] == 80


def test_a_form_that_is_refused_says_which_field_and_keeps_what_was_written(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    file_id = feed.client.upload_file(problems)["id"]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    app.selectbox(key="training_file").select(file_id).run()
    app.number_input(key="train_batch_num_minibatches").set_value(7).run()

    app.button(key="submit").click().run()

    assert not app.exception
    assert "num_minibatches 7 does not divide num_prompts 64" in app.error[0].value.replace("\\", "")
    assert app.number_input(key="train_batch_num_minibatches").value == 7


def test_problems_that_are_made_on_the_spot_are_chosen_with_their_own_scorer(feed: Feed) -> None:
    app = AppTest.from_file(str(DASHBOARD), default_timeout=60).switch_page(str(Path("views") / "new.py")).run()

    app.selectbox(key="training_task").select("leg_counting")
    app.number_input(key="training_size").set_value(40)
    app.number_input(key="training_seed").set_value(5)
    app.button(key="training_use").click().run()
    app.number_input(key="train_batch_num_prompts").set_value(4).run()
    app.number_input(key="run_seed").set_value(3).run()
    assert "40 rows" in texts(app)
    app.button(key="submit").click().run()

    assert not app.exception
    job = feed.client.list_jobs()["data"][0]
    feed.client.cancel_job(job["id"])
    assert job["method"]["reinforcement"]["grader"]["type"] == "reasoning_gym"
    assert (job["num_steps"], job["seed"]) == (10, 3)  # 40 problems by 4 a step
    sent = {file["id"]: file["filename"] for file in feed.client.list_files()["data"]}
    assert sent[job["training_file"]] == "leg_counting-5.jsonl"


def test_a_grader_of_several_is_written_as_json_and_what_is_none_is_said_at_its_field(
    feed: Feed, tmp_path: Path
) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    file_id = feed.client.upload_file(problems)["id"]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    app.selectbox(key="training_file").select(file_id).run()
    app.number_input(key="train_batch_num_prompts").set_value(4).run()
    app.selectbox(key="grader").select("multi").run()

    app.text_area(key="grader_multi_graders").input('{"right": {"type": "math", ').run()
    assert "graders` is not valid JSON" in app.error[0].value
    graders = {"right": {"type": "math", "reference": "{{item.answer}}"}}
    app.text_area(key="grader_multi_graders").input(json.dumps(graders)).run()
    app.text_input(key="grader_multi_calculate_output").input("right ^ 2").run()
    app.button(key="dry_run").click().run()

    assert not app.error
    _, preview = app.session_state["preview"]
    assert preview["method"]["reinforcement"]["grader"]["graders"]["right"]["type"] == "math"
    assert preview["method"]["reinforcement"]["grader"]["calculate_output"] == "right ^ 2"


def test_a_file_is_reported_on_and_a_dry_run_shows_the_plan_and_queues_nothing(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "doubtful.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 3 + '{"prompt": "22+1=", "answer": "23"}\n' * 5)
    file_id = feed.client.upload_file(problems)["id"]
    before = feed.client.list_jobs()["data"][:1]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()

    app.selectbox(key="training_file").select(file_id).run()
    app.number_input(key="train_batch_num_prompts").set_value(4).run()
    app.button(key="dry_run").click().run()

    assert not app.exception
    assert "8 rows · 6 duplicate prompts" in texts(app).replace("\\", "")
    assert list(app.dataframe[0].value["Line"]) == [2, 3, 5, 6, 7, 8]
    plan = {metric.label: metric.value for metric in app.metric}
    assert (plan["Steps"], plan["Responses a step"]) == ("2", "32")  # 8 rows by 4 a step, 8 answers each
    assert feed.client.list_jobs()["data"][:1] == before


def test_one_file_may_hold_the_problems_to_train_and_to_validate_with(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "both.jsonl"
    problems.write_text("".join(json.dumps({"prompt": "1+" * n, "answer": "2"}) + "\n" for n in range(1, 9)))
    file_id = feed.client.upload_file(problems)["id"]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()

    app.selectbox(key="training_file").select(file_id).run()
    app.selectbox(key="validation_file").select(file_id).run()

    assert not app.exception
    assert len(app.get("echarts_chart")) == 2
    assert "8 prompts stand in the other file too" in texts(app)
