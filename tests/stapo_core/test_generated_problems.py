"""The real process on problems that are made as they are asked for, a part of them held out by the seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stapo_core.config.sources import ReasoningGymSource
from stapo_core.data import hold_out, read_rows
from tests.stapo_core.tiny import make_run_folder, read_events

SOURCE = ReasoningGymSource(
    source="reasoning_gym",
    task="chain_sum",
    config={"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1, "size": 240, "seed": 5},
)
SEED = 7
STEPS = 15  # of 16 prompts each: an epoch of 228 and a little more


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a validation file."""
    run_dir = make_run_folder(
        tmp_path_factory.mktemp("generated"),
        num_steps=STEPS,
        batch={"num_prompts": 16, "group_size": 2, "max_tokens_per_microbatch": 2048},
        sampling={"max_prompt_tokens": 80, "max_response_tokens": 12},
        evaluation={"every_steps": STEPS},
        record_rollouts_every=1,
    )
    path = run_dir / "config.json"
    changes = {"training_file": SOURCE.model_dump(), "validation_file": None, "grader": {"type": "reasoning_gym"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes | {"seed": SEED}))
    command = [sys.executable, "-m", "stapo_core", str(run_dir)]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, timeout=300)
    assert ended.returncode == 0, read_events(run_dir)[-1]
    return run_dir


def read_responses(run_dir: Path) -> list[dict[str, Any]]:
    """One row per response of the whole run."""
    columns = ["step", "prompt_index", "sample_index", "position", "prompt", "response", "reward"]
    tables = [pq.read_table(path, columns=columns) for path in sorted((run_dir / "rollouts").iterdir())]
    return [row for table in tables for row in table.to_pylist() if row["position"] == 0]


def score(prompt: str, response: str) -> float:
    """The scorer of chain_sum by hand: 1 for the number; where it is part of a longer text, its share of that."""
    first, *rest = prompt.rpartition(": ")[2].removesuffix(" =").split(" ")
    total = int(first) + sum(int(f"{sign}{digit}") for sign, digit in zip(rest[::2], rest[1::2], strict=True))
    answer = response.strip().replace(",", "")
    if answer.removeprefix("+") == str(total):
        return 1.0
    return len(str(total)) / len(answer) if str(total) in answer else 0.0


def test_an_epoch_trains_on_every_problem_but_those_held_out(run_dir: Path) -> None:
    rows = read_rows(SOURCE)
    held_out = {rows[number]["prompt"] for number in hold_out(rows, 0.05, SEED).held_out}
    trained = {row["prompt"] for row in read_responses(run_dir)}
    assert trained == {row["prompt"] for row in rows} - held_out
    evaluations = [event for event in read_events(run_dir) if event["type"] == "evaluation"]
    assert [event["step"] for event in evaluations] == [0, STEPS]
    assert [event["metrics"]["eval/num_problems"] for event in evaluations] == [12.0, 12.0]


def test_every_reward_is_the_one_of_the_tasks_own_scorer(run_dir: Path) -> None:
    responses = read_responses(run_dir)
    assert len(responses) == STEPS * 16 * 2
    expected = [score(row["prompt"], row["response"]) for row in responses]
    assert [row["reward"] for row in responses] == pytest.approx(expected)
    assert max(expected) > 0.0
