"""The command line against a real platform: what it prints, what it leaves, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from client import cli, demo
from client.running import RunningPlatform
from client.training import read_config
from tests.client.processes import wait_until_gone
from tests.client.service import Answer, Asked, serve
from tests.conftest import find_free_port

GRADER = {"type": "numeric", "reference": "{{item.answer}}"}
SHORT = {
    "num_steps": 3,
    "batch": {"num_prompts": 2, "group_size": 2},
    "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 16},
    "evaluation": {"max_problems": 4},
    "checkpoint": {"every_steps": 2},
}


def stapo(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=env)


@pytest.fixture
def env(platform: RunningPlatform, warm_base: Path) -> dict[str, str]:
    """The environment of somebody who uses the platform, which knows a model named `tiny`."""
    model = platform.home / "models" / "tiny"
    if not model.exists():
        model.parent.mkdir(exist_ok=True)
        shutil.copytree(warm_base / "model", model)
    return {"STAPO_HOME": str(platform.home)}


@pytest.fixture
def job_file(tmp_path: Path, warm_base: Path) -> Path:
    shutil.copy(warm_base / "train.jsonl", tmp_path)
    shutil.copy(warm_base / "validation.jsonl", tmp_path)
    return write_job(tmp_path / "job.yaml")


def write_job(path: Path, **changed: Any) -> Path:
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "config": SHORT}}
    body = {"model": "tiny", "training_file": "train.jsonl", "validation_file": "validation.jsonl", "method": method}
    path.write_text(yaml.safe_dump(body | changed))
    return path


def test_a_job_file_becomes_a_job_a_curve_and_a_folder(env: dict[str, str], job_file: Path, tmp_path: Path) -> None:
    submitted = stapo("submit", job_file, env=env)
    assert submitted.exit_code == 0, submitted.output
    job_id = submitted.stdout.strip()

    watched = stapo("watch", job_id, env=env)
    assert watched.exit_code == 0, watched.output
    assert "step    3/3" in watched.stdout
    assert f"{job_id} succeeded after 3 steps" in watched.stdout

    listed = json.loads(stapo("jobs", "--json", env=env).stdout)
    assert (job_id, "succeeded") in [(job["id"], job["state"]) for job in listed["data"]]

    fetched = stapo("download", job_id, "--out", tmp_path / "out", "--json", env=env)
    assert fetched.exit_code == 0, fetched.output
    assert json.loads(fetched.stdout)["step"] == 3
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 1_000_000
    assert stapo("download", job_id, "--step", "7", env=env).exit_code == 1

    again = stapo("watch", job_id, "--json", env=env)
    seen = [json.loads(line) for line in again.stdout.splitlines()]
    assert [event["data"]["step"] for event in seen if event["data"].get("kind") == "train"] == [1, 2, 3]


def test_a_cancelled_job_ends_the_watch_with_code_3(env: dict[str, str], job_file: Path) -> None:
    endless = SHORT | {"num_steps": 100_000}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "config": endless}}
    job_id = stapo("submit", write_job(job_file, method=method), env=env).stdout.strip()
    assert stapo("cancel", job_id, env=env).exit_code == 0
    watched = stapo("watch", job_id, env=env)
    assert watched.exit_code == 3, watched.output
    assert f"{job_id} cancelled" in watched.stdout


def test_a_job_is_paused_and_resumed_and_its_log_is_read_to_the_end(env: dict[str, str], job_file: Path) -> None:
    longer = SHORT | {"num_steps": 400}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "config": longer}}
    job_id = stapo("submit", write_job(job_file, method=method), env=env).stdout.strip()
    wait_for(lambda job: job["step"] >= 1, job_id, env)
    assert json.loads(stapo("pause", job_id, "--json", env=env).stdout)["id"] == job_id
    wait_for(lambda job: job["state"] == "paused", job_id, env)
    with (Path(env["STAPO_HOME"]) / "runs" / job_id / "trainer.log").open("a") as log:
        log.write("said by a trainer\n")
    assert stapo("resume", job_id, env=env).stdout.split()[0] == job_id
    followed = stapo("logs", job_id, "--follow", env=env)
    assert followed.exit_code == 0, followed.output
    assert job_of(job_id, env)["state"] == "succeeded"
    assert "said by a trainer\n" in followed.stdout
    assert stapo("logs", job_id, env=env).stdout == followed.stdout


def test_what_a_log_would_tell_a_terminal_to_do_is_written_out() -> None:
    part = {"text": "a\tb\x1b[2J\n", "next_offset": 8, "has_more": False}
    with serve(lambda _: Answer(body=json.dumps(part).encode())) as service:
        env = {"STAPO_API_URL": service.url, "STAPO_API_KEY": "key"}
        printed, told = stapo("logs", "ftjob-1", env=env), stapo("logs", "ftjob-1", "--json", env=env)
    assert printed.stdout == "a\tb\\x1b[2J\n"
    assert json.loads(told.stdout) == {"text": part["text"]}


def job_of(job_id: str, env: dict[str, str]) -> dict[str, Any]:
    page = json.loads(stapo("jobs", "--json", env=env).stdout)
    found: dict[str, Any] = next(job for job in page["data"] if job["id"] == job_id)
    return found


def wait_for(is_so: Callable[[dict[str, Any]], bool], job_id: str, env: dict[str, str]) -> None:
    deadline = time.monotonic() + 60.0
    while not is_so(job_of(job_id, env)):
        assert time.monotonic() < deadline, job_of(job_id, env)
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"training_file": "missing.jsonl"}, ["training_file", "missing.jsonl"]),
        ({"model": "no-such-model"}, ["no-such-model", "tiny"]),
        ({"colour": "red"}, ["colour"]),
    ],
)
def test_a_wrong_job_is_refused_with_a_sentence_and_nothing_is_queued(
    env: dict[str, str], job_file: Path, changed: dict[str, Any], words: list[str]
) -> None:
    before = len(json.loads(stapo("jobs", "--json", env=env).stdout)["data"])
    refused = stapo("submit", write_job(job_file, **changed), env=env)
    assert refused.exit_code == 1
    assert all(word in refused.stderr for word in words), refused.stderr
    assert "Traceback" not in refused.output
    assert len(json.loads(stapo("jobs", "--json", env=env).stdout)["data"]) == before


def test_a_checkpoint_behind_the_first_page_is_found_by_its_step(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        saved = {"id": "ftckpt-1", "fine_tuning_job_id": "ftjob-1", "step_number": 1, "files": []}
        if "after=" in asked.path:
            return Answer(body=json.dumps({"data": [saved], "has_more": False}).encode())
        if "/jobs/" in asked.path:
            page = [saved | {"id": f"ftckpt-{step}", "step_number": step} for step in range(101, 1, -1)]
            return Answer(body=json.dumps({"data": page, "has_more": True, "last_id": "ftckpt-2"}).encode())
        return Answer(body=json.dumps(saved).encode())

    with serve(answer) as service:
        env = {"STAPO_API_URL": service.url, "STAPO_API_KEY": "k"}
        fetched = stapo("download", "ftjob-1", "--step", "1", "--out", tmp_path / "out", env=env)
        missing = stapo("download", "ftjob-1", "--step", "102", env=env)
    assert fetched.exit_code == 0, fetched.output
    assert (missing.exit_code, "101, 100," in missing.stderr, "2, 1." in missing.stderr) == (1, True, True)


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize("option", ["--port", "--dashboard-port"])
@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_is_none_is_wrong_usage(tmp_path: Path, command: str, option: str, port: str) -> None:
    refused = stapo(command, option, port, env={"STAPO_HOME": str(tmp_path), "COLUMNS": "200"})
    words = f"Invalid value for '{option}': Input should be"
    assert (refused.exit_code, words in refused.stderr) == (2, True), refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_job_and_a_wrong_key_are_sentences(env: dict[str, str]) -> None:
    unknown = stapo("watch", "ftjob-0", env=env)
    assert (unknown.exit_code, "not_found" in unknown.stderr) == (1, True)
    stranger = stapo("jobs", env=env | {"STAPO_API_KEY": "wrong"})
    assert (stranger.exit_code, "invalid_api_key" in stranger.stderr) == (1, True)


def test_no_key_and_no_platform_are_sentences(tmp_path: Path, free_port: int) -> None:
    nowhere = {"STAPO_HOME": str(tmp_path), "STAPO_API_URL": f"http://127.0.0.1:{free_port}"}
    keyless = stapo("jobs", env=nowhere)
    assert (keyless.exit_code, "STAPO_API_KEY" in keyless.stderr) == (1, True)
    alone = stapo("jobs", env=nowhere | {"STAPO_API_KEY": "k"})
    assert (alone.exit_code, f"127.0.0.1:{free_port}" in alone.stderr) == (1, True)


def test_a_job_file_that_is_no_yaml_is_named(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("a: [")
    refused = stapo("submit", tmp_path / "job.yaml", env=env)
    assert (refused.exit_code, str(tmp_path / "job.yaml") in refused.stderr) == (1, True)


@pytest.fixture
def run_file(tmp_path: Path, warm_base: Path) -> Path:
    config = {
        "model": str(warm_base / "model"),
        "training_file": str(warm_base / "train.jsonl"),
        "grader": GRADER,
        "train": SHORT,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_training_alone_draws_its_steps_and_leaves_a_checkpoint(run_file: Path, tmp_path: Path) -> None:
    result = stapo("train", run_file, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "step    3/3" in result.stdout
    assert (tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors").exists()


def test_an_estimate_is_printed_and_nothing_is_started(run_file: Path, tmp_path: Path) -> None:
    result = stapo("train", "--estimate", run_file, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert re.search(r"^peak +\d+ MiB$", result.stdout, re.MULTILINE)
    assert not (tmp_path / "run").exists()


def test_an_estimate_names_a_model_that_tells_no_sizes(run_file: Path) -> None:
    run_file.write_text(yaml.safe_dump(yaml.safe_load(run_file.read_text()) | {"model": "nowhere"}))
    result = stapo("train", "--estimate", run_file)
    assert (result.exit_code, "nowhere tells no sizes" in result.stderr) == (1, True)


def test_training_alone_finds_every_validation_file_beside_the_config(run_file: Path, warm_base: Path) -> None:
    shutil.copy(warm_base / "validation.jsonl", run_file.parent / "held-out.jsonl")
    more = {"validation_files": [{"name": "held-out", "file": "held-out.jsonl"}]}
    run_file.write_text(yaml.safe_dump(yaml.safe_load(run_file.read_text()) | more))
    assert read_config(run_file).validation_files[0].file == run_file.parent / "held-out.jsonl"


def test_training_alone_refuses_each_wrong_field_by_name(run_file: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(run_file.read_text()) | {"colour": "red", "seed": -1}
    run_file.write_text(yaml.safe_dump(config))
    result = stapo("train", run_file, "--run-dir", tmp_path / "run")
    assert result.exit_code == 1
    assert "colour" in result.stderr
    assert "seed" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_directory_of_another_config_is_not_touched(run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    result = stapo("train", run_file, "--run-dir", tmp_path / "run")
    assert (result.exit_code, "another config" in result.stderr) == (1, True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_ctrl_c_lets_a_lone_trainer_save_and_the_same_command_goes_on(run_file: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(run_file.read_text())
    config["train"] = SHORT | {"num_steps": 100_000, "checkpoint": {"every_steps": 100_000}}
    run_file.write_text(yaml.safe_dump(config))
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "client.cli", "train", str(run_file), "--run-dir", str(run_dir)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_steps(run_dir, 2)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=30) == 75
    last = max((run_dir / "checkpoints").glob("step-*"))
    step = int(last.name.removeprefix("step-"))

    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_steps(run_dir, step + 1)
    second.kill()
    second.wait()
    assert wait_until_gone(run_dir, within_s=10) == {}
    steps = steps_of(run_dir)
    assert steps[: step + 1] == list(range(1, step + 2))


def steps_of(run_dir: Path) -> list[int]:
    spool = run_dir / "events.jsonl"
    lines = spool.read_bytes().splitlines(keepends=True) if spool.exists() else []
    events = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [event["step"] for event in events if event["type"] == "step"]


def wait_for_steps(run_dir: Path, num_steps: int) -> None:
    deadline = time.monotonic() + 90
    while len(steps_of(run_dir)) < num_steps:
        assert time.monotonic() < deadline, f"{num_steps} steps did not come"
        time.sleep(0.05)


def test_the_demo_trains_fetches_asks_and_leaves_nothing_running(
    home: Path, warm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DEMO_TRAIN", SHORT)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(warm_base, demo.base_folder(home))
    ports = ["--port", str(find_free_port()), "--dashboard-port", str(find_free_port())]
    result = stapo("demo", *ports, env={"STAPO_HOME": str(home)})
    assert result.exit_code == 0, result.output
    assert "accuracy on held-out problems" in result.stdout
    assert "tokens masked" in result.stdout
    assert "sampled answers" in result.stdout
    (model,) = tmp_path.glob("runs/demo/ftjob-*/model.safetensors")
    assert model.stat().st_size > 1_000_000
    assert wait_until_gone(home, within_s=10) == {}


def test_a_demo_whose_job_fails_says_why_and_stops_the_platform(
    home: Path, warm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impossible = SHORT | {"sampling": {"max_prompt_tokens": 32, "max_response_tokens": 1000}}
    monkeypatch.setattr(demo, "DEMO_TRAIN", impossible)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(warm_base, demo.base_folder(home))
    ports = ["--port", str(find_free_port()), "--dashboard-port", str(find_free_port())]
    result = stapo("demo", *ports, env={"STAPO_HOME": str(home)})
    assert result.exit_code == 1, result.output
    assert "failed while loading" in result.stderr
    assert "max_response_tokens" in result.stderr
    assert wait_until_gone(home, within_s=10) == {}


def test_the_doctor_finds_this_machine_well(home: Path) -> None:
    env = {
        "STAPO_HOME": str(home),
        "STAPO_API_PORT": str(find_free_port()),
        "STAPO_DASHBOARD_PORT": str(find_free_port()),
    }
    result = stapo("doctor", "--json", env=env)
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert [name for name, finding in findings.items() if finding["is_needed"] and not finding["ok"]] == []
    assert result.exit_code == 0
    assert "18." in findings["Postgres"]["detail"]
    assert findings["sandbox for user code"]["ok"]
    assert "STAPO_USER_CODE=sandboxed" in findings["sandbox for user code"]["detail"]


def test_the_doctor_names_what_is_missing_and_the_remedy(home: Path) -> None:
    closed = home / "file"
    closed.write_text("")
    result = stapo("doctor", env={"STAPO_HOME": str(closed)})
    assert result.exit_code == 1
    assert "missing state folder" in result.stdout
    assert "STAPO_HOME" in result.stdout


def test_the_command_line_knows_no_torch() -> None:
    script = "import sys, client.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=dict(os.environ)).returncode == 0
