"""Whole runs whose responses vLLM draws: alone, on several ranks, with a weight left behind, as a platform's job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.http import Client
from client.running import RunningPlatform
from stapo_core.__main__ import main
from stapo_core.events import EXIT_STOPPED
from stapo_core.folders import verify
from stapo_core.policy import Policy
from tests.stapo_core.test_main import wait_for
from tests.stapo_core.tiny import make_run_folder, read_events
from tests.vllm.models import make_folder

pytestmark = pytest.mark.timeout(900)  # several processes that load torch and vLLM, beside whatever else runs here

RATIO_BINS = ["below_0.5", "0.5_to_0.8", "0.8_to_0.95", "0.95_to_1.05", "1.05_to_1.25", "1.25_to_2", "above_2"]
SETTINGS: dict[str, Any] = {
    "num_steps": 10,
    "batch": {"num_prompts": 8, "group_size": 8, "max_tokens_per_microbatch": 512},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 12, "engine": "vllm"},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 0},
    "checkpoint": {"every_steps": 5},
}
SEVEN: dict[str, Any] = {"type": "regex", "pattern": "7"}
"""A reward that a model with random weights learns within a few steps: one response in five has it by chance."""


def make_run(folder: Path, *, tied: bool = True, **train: Any) -> Path:
    run_dir = make_run_folder(folder, **SETTINGS | train)
    shutil.rmtree(folder / "model")
    make_folder(folder / "model", tied=tied, spread=2.0)
    config = json.loads((run_dir / "config.json").read_text()) | {"grader": SEVEN}
    (run_dir / "config.json").write_text(json.dumps(config))
    return run_dir


def run(run_dir: Path, *launcher: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *launcher, "-m", "stapo_core", str(run_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr


def steps(run_dir: Path) -> list[dict[str, float]]:
    return [event["metrics"] for event in read_events(run_dir) if event["type"] == "step"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs, of a model with a tied head and of one with a head of its own."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: make_run(folder / name, tied=name == "tied") for name in ("tied", "untied")}
    for run_dir in made.values():
        run(run_dir)
    return made


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_job_trains_end_to_end_and_agrees_with_its_engine_at_every_step(runs: dict[str, Path], head: str) -> None:
    run_dir = runs[head]
    events = read_events(run_dir)
    started = next(event for event in events if event["type"] == "started")
    assert started["engine"] == "vllm (as the config asks)"
    assert events[-1] == events[-1] | {"type": "finished", "step": 10, "reason": "num_steps_reached"}
    rewards = [step["reward/mean"] for step in steps(run_dir)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    for step in steps(run_dir):
        assert 0 < step["sampler/logp_diff_mean"] < step["sampler/logp_diff_max"] < 1e-5
        assert 0 <= step["sampler/kl"] < 1e-10
        shares = {name: step[f"sampler/ratio_hist/{name}"] for name in RATIO_BINS}
        assert shares == {name: float(name == "0.95_to_1.05") for name in RATIO_BINS}
        assert step["policy/entropy"] > 0  # the learner's own: the engine tells none
    assert (run_dir / "checkpoints" / "step-000010" / "model.safetensors").is_file()


def test_the_same_seed_draws_the_same_curve(runs: dict[str, Path], tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, num_steps=3)
    run(run_dir)
    timed = ("speed/", "memory/")
    curves = [
        [{key: value for key, value in step.items() if not key.startswith(timed)} for step in steps(each)[:3]]
        for each in (run_dir, runs["tied"])
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("num_together", [1, 2])
def test_two_ranks_draw_with_an_engine_each_or_with_one_between_them(tmp_path: Path, num_together: int) -> None:
    sampling = SETTINGS["sampling"] | {"tensor_parallel_size": num_together}
    run_dir = make_run(tmp_path, sampling=sampling, num_steps=3)
    run(run_dir, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

    assert [event["step"] for event in read_events(run_dir) if event["type"] == "step"] == [1, 2, 3]
    assert all(0 < step["sampler/logp_diff_max"] < 1e-5 for step in steps(run_dir))
    assert all(step["tokens/trained"] > 8 * 8 for step in steps(run_dir))


def test_a_run_stops_on_request_with_a_checkpoint_of_its_last_whole_step(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, num_steps=100_000, evaluation={})
    with subprocess.Popen([sys.executable, "-m", "stapo_core", str(run_dir)], stderr=subprocess.PIPE) as process:
        wait_for(run_dir, "step", timeout_s=400.0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    assert process.returncode == EXIT_STOPPED
    last_step = max(event["step"] for event in read_events(run_dir) if event["type"] == "step")
    assert read_events(run_dir)[-1] == read_events(run_dir)[-1] | {"type": "finished", "reason": "stopped"}
    assert verify(run_dir / "checkpoints" / f"step-{last_step:06d}").step == last_step


def test_a_head_that_stays_behind_ends_the_run_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tied head is left out of every update but the first: what engines forget, if they are not told."""
    whole: Callable[[Policy], dict[str, Any]] = Policy.weights
    told: list[int] = []

    def without_head(policy: Policy) -> dict[str, Any]:
        told.append(len(told))
        weights = whole(policy)
        return {name: weights[name] for name in weights if name != "lm_head.weight" or len(told) == 1}

    monkeypatch.setattr(Policy, "weights", without_head)
    run_dir = make_run(tmp_path)
    assert main([str(run_dir)]) == 1

    failed = read_events(run_dir)[-1]
    assert (failed["type"], failed["code"], failed["retryable"]) == ("failed", "sampler_mismatch", False)
    assert failed["stage"] == "exporting"
    figure = float(failed["message"].split("differ by ")[1].split()[0])
    assert figure > 1e-4
    assert "0.0001 is tolerated" in failed["message"]
    assert [event for event in read_events(run_dir) if event["type"] == "step"] == []


def test_a_platforms_worker_trains_with_it(platform: RunningPlatform, tmp_path: Path) -> None:
    make_folder(platform.home / "models" / "tiny", tied=True, spread=2.0)
    problems = tmp_path / "sums.jsonl"
    problems.write_text("".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(9)))
    with Client(platform.api_url, platform.api_key) as client:
        method = {"grader": SEVEN, "config": SETTINGS | {"num_steps": 4}}
        body = {
            "model": "tiny",
            "training_file": client.upload_file(problems)["id"],
            "method": {"type": "reinforcement", "reinforcement": method},
        }
        job, deadline = client.create_job(body), time.monotonic() + 400.0
        while job["status"] not in ("succeeded", "failed") and time.monotonic() < deadline:
            time.sleep(0.3)
            job = client.get_job(job["id"])
        assert job["status"] == "succeeded", job
        points = client.get_metrics(job["id"], kind="train")["data"]
        messages = [event["message"] for event in client.list_events(job["id"])["data"]]
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    differences = [point["values"]["sampler/logp_diff_max"] for point in points]
    assert all(each is not None and each < 1e-5 for each in differences)
    assert any("Responses are drawn by vllm (as the config asks)." in message for message in messages)
