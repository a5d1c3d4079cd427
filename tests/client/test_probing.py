"""`stapo probe` against a real server whose answers the test gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.probing import probe_of
from tests.client.service import Answer, Asked, serve

FIGURES = {
    "name": "right",
    "type": "numeric",
    "num_judged": 31,
    "num_distinct": 2,
    "mean": 0.25,
    "std": 0.4331,
    "minimum": 0.0,
    "maximum": 1.0,
    "share_all_zero": 0.5,
    "share_all_one": 0.125,
    "share_equal": 0.625,
    "errors": {"timeout": 1},
    "notes": {"out_of_memory": 2},
    "error_share": 0.03125,
    "latency_p50_s": 0.002,
    "latency_p95_s": 0.0314,
}
FOUND = {
    "verdict": "usable",
    "reason": "38% of the prompts got responses of different scores.",
    "total": FIGURES,
    "parts": [],
    "examples": [{"prompt": "1+2=", "response": "3", "score": 1.0, "error": None, "note": None, "parts": {}}],
}


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+2=", "answer": "3"}\n')
    grader = {"type": "numeric", "reference": "{{item.answer}}"}
    job = {"model": "base", "training_file": "rows.jsonl", "method": {"reinforcement": {"grader": grader}}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    return tmp_path / "job.json"


def probe(job_file: Path, url: str, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, ["probe", str(job_file), *options], env={"STAPO_API_URL": url, "STAPO_API_KEY": "key", "COLUMNS": "160"}
    )
    return done.exit_code, done.output


def answer_with(verdict: str) -> tuple[list[dict[str, object]], Callable[[Asked], Answer]]:
    bodies: list[dict[str, object]] = []

    def answer(asked: Asked) -> Answer:
        if asked.path == "/v1/files":
            return Answer(body=b'{"id": "file-1"}')
        bodies.append(json.loads(asked.body))
        return Answer(body=json.dumps(FOUND | {"verdict": verdict}).encode())

    return bodies, answer


def test_the_jobs_grader_is_tried_and_the_figures_are_shown(job_file: Path) -> None:
    bodies, answer = answer_with("usable")
    with serve(answer) as service:
        code, output = probe(job_file, service.url, "--prompts", "8", "--samples", "4")
    assert code == 0, output
    assert [service.asked[-1].path, len(bodies)] == ["/v1/fine_tuning/alpha/graders/probe", 1]
    assert (bodies[0]["model"], bodies[0]["training_file"], bodies[0]["num_samples"]) == ("base", "file-1", 4)
    for shown in (
        "usable",
        "0.250",
        "0.433",
        "50%",
        "12%",
        "2.0 ms",
        "31.4 ms",
        "1 timeout",
        "out_of_memory",
        "'1+2=' -> '3'",
    ):
        assert shown in output, shown


def test_the_responses_are_drawn_as_the_job_would_draw_them() -> None:
    sampling = {"temperature": 0.7, "max_response_tokens": 15_360, "top_p": 0.9}
    reinforcement = {"grader": {"type": "numeric"}, "config": {"sampling": sampling}}
    job = {"model": "base", "training_file": "file-1", "seed": 5, "method": {"reinforcement": reinforcement}}
    assert probe_of(job) == {
        "model": "base",
        "training_file": "file-1",
        "grader": {"type": "numeric"},
        "temperature": 0.7,
        "max_tokens": 4096,
    }


def test_a_grader_that_gives_one_score_is_told_by_the_exit_code(job_file: Path) -> None:
    _, answer = answer_with("one_score")
    with serve(answer) as service:
        code, output = probe(job_file, service.url, "--json")
    assert code == 1
    assert json.loads(output)["verdict"] == "one_score"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({}, "a probe needs 'reinforcement' of the job"),
        ("stapo", "`method` is not as a job has it"),
        ({"reinforcement": {"grader": {}, "config": "demo"}}, "`method` is not as a job has it"),
    ],
)
def test_a_job_file_that_cannot_be_probed_is_a_sentence(job_file: Path, method: object, words: str) -> None:
    job_file.write_text(json.dumps({"model": "base", "training_file": "file-1", "method": method}))
    with serve(lambda _: Answer()) as service:
        code, output = probe(job_file, service.url)
    assert code == 1
    assert words in output
