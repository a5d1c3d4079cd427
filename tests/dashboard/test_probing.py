"""The form's probe of a grader: its figures as they are shown, and a refusal that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import probing
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed

FIGURES: dict[str, Any] = {
    "name": "right",
    "mean": 0.25,
    "std": 0.4331,
    "share_all_zero": 0.5,
    "share_all_one": 0.125,
    "errors": {"timeout": 2, "crash": 1},
    "notes": {"out_of_memory": 2},
    "latency_p50_s": 0.002,
    "latency_p95_s": 0.0314,
}
FOUND: dict[str, Any] = {
    "verdict": "one_score",
    "reason": "Every response got the score 0.",
    "total": FIGURES,
    "parts": [FIGURES | {"name": "part", "mean": None, "std": None, "errors": {}, "notes": {}}],
    "examples": [
        {"prompt": "1+2=", "response": "3", "score": 1.0, "error": None, "note": None},
        {"prompt": "1+2=", "response": "?", "score": 0.0, "error": "timeout", "note": None},
    ],
}


def test_each_part_has_a_line_of_figures_in_words() -> None:
    assert probing.figures(FOUND) == {
        "Grader": ["right", "part"],
        "Mean": ["0.250", "–"],
        "Spread": ["0.433", "–"],
        "Groups of all 0": ["50%", "50%"],
        "Groups of all 1": ["12%", "12%"],
        "Latency p50": ["2.0 ms", "2.0 ms"],
        "Latency p95": ["31.4 ms", "31.4 ms"],
        "Errors": ["1 crash, 2 timeout", "none"],
        "Limits met": ["2 out_of_memory", "none"],
    }


def test_a_response_shows_its_score_or_its_trouble() -> None:
    assert probing.responses(FOUND)["Score"] == ["1", "timeout"]
    limited = {"prompt": "1+2=", "response": "while True: pass", "score": 0.0, "error": None, "note": "timeout"}
    assert probing.responses(FOUND | {"examples": [limited]})["Score"] == ["0 (timeout)"]


def test_what_cannot_be_seen_in_prompts_and_responses_is_named() -> None:
    hostile = {"prompt": "1+\u202e2=", "response": "\u200b3", "score": 1.0, "error": None, "note": None}

    shown = probing.responses(FOUND | {"examples": [hostile]})

    assert (shown["Prompt"], shown["Response"]) == (["1+⟨U+202E⟩2="], ["⟨U+200B⟩3"])


def test_the_answer_is_shown_while_the_request_is_the_one_that_was_probed() -> None:
    def page() -> None:
        import streamlit as st

        from dashboard import probing
        from tests.dashboard.test_probing import FOUND

        st.session_state["probed"] = ({"model": "a"}, FOUND)
        probing.show({"model": st.text_input("model", value="a")})

    app = AppTest.from_function(page).run()
    assert not app.exception
    assert [next(iter(table.value.columns)) for table in app.dataframe] == ["Grader", "Prompt"]
    assert any("Every response got the score 0" in caption.value for caption in app.caption)
    app.text_input[0].set_value("b").run()
    assert not app.dataframe


@pytest.mark.usefixtures("pages")
def test_a_probe_that_nobody_can_answer_says_so_and_queues_nothing(feed: Feed, tmp_path: Path) -> None:
    problems = tmp_path / "sums.jsonl"
    problems.write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    file_id = feed.client.upload_file(problems)["id"]
    before = [job["id"] for job in feed.client.list_jobs()["data"]]
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()
    assert app.button(key="probe").disabled

    app.selectbox(key="training_file").select(file_id).run()
    app.button(key="probe").click().run()

    assert not app.exception
    assert any("No worker is alive" in each.value for each in [*app.error, *app.warning, *app.markdown])
    assert [job["id"] for job in feed.client.list_jobs()["data"]] == before
