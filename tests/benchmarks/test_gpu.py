"""The GPU's benchmark, at toy sizes: it runs without a GPU, and it would find a fold or a run that went wrong."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.gpu_fold import SMALL, compare, draw
from benchmarks.gpu_training import Trained, print_trained
from stapo_core.token_stats import torch_fold

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "benchmarks", "gpu", *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def value(output: str, figure: str) -> float:
    found = re.search(rf"{re.escape(figure)} +│ +([0-9.e,+-]+)", output)
    assert found, output
    return float(found[1].replace(",", ""))


def trained(*, flags: list[str], warnings: list[str]) -> Trained:
    metrics = {"speed/step_s": 2.0, "speed/tokens_per_s": 1500.0, "policy/entropy": 3.25}
    metrics |= {"sampler/logp_diff_mean": 0.001, "sampler/logp_diff_max": 0.01}
    steps: list[dict[str, Any]] = [{"metrics": metrics, "flags": each} for each in ([], flags)]
    return Trained(1_000_000, steps, warnings, peak_mb=1.0)


def test_without_a_gpu_the_command_says_so_in_one_sentence_and_exits_with_2() -> None:
    done = command()

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "no GPU is at hand: nothing was measured (--device cpu --small tries the code out)\n"


def test_at_toy_sizes_the_kernel_agrees_under_its_interpreter_and_the_trainer_learns_in_bfloat16() -> None:
    done = command("--device", "cpu", "--small")

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"│ +agree │", done.stdout)) == 2
    assert "3 steps in bfloat16" in done.stdout
    # 256 words of nearly equal logits: the entropy lies just below ln 256.
    for place in ("first", "last"):
        assert math.log(256) - 0.1 < value(done.stdout, f"entropy of the {place} step, nats") < math.log(256)
    assert 0.0 < value(done.stdout, "log p of sampler and trainer apart, mean") < 0.01
    assert re.search(r"metrics that were not finite +│ +none", done.stdout)


def test_a_fold_that_counts_squares_twice_differs_by_a_whole_and_in_nothing_else() -> None:
    def doubling(logits: Tensor, sums: Tensor) -> None:
        torch_fold.fold(logits, sums)
        sums[3] *= 2.0

    found = compare(draw(SMALL, torch.device("cpu"), torch.float32), doubling, torch_fold.fold)

    assert found.sum_squares >= 1.0
    assert (found.logprobs, found.entropies, found.hidden_gradient, found.weight_gradient) == (0.0, 0.0, 0.0, 0.0)
    assert not found.is_within(torch.float32)


def test_a_fold_that_is_not_finite_is_not_within_the_limits() -> None:
    def breaking(logits: Tensor, sums: Tensor) -> None:
        torch_fold.fold(logits, sums)
        sums[1] = math.nan

    found = compare(draw(SMALL, torch.device("cpu"), torch.bfloat16), breaking, torch_fold.fold)

    assert not found.is_within(torch.bfloat16)


@pytest.mark.parametrize(
    ("flags", "warnings", "is_fine"),
    [([], [], True), (["policy/loss"], [], False), ([], ["the update was skipped"], False)],
)
def test_a_run_is_fine_when_every_metric_is_finite_and_no_step_was_skipped(
    flags: list[str], warnings: list[str], is_fine: bool
) -> None:
    console = Console(width=120)
    with console.capture() as shown:
        assert print_trained(trained(flags=flags, warnings=warnings), console) is is_fine

    assert value(shown.get(), "steps/s, median") == 0.5
    assert all(word in shown.get() for word in flags + warnings)
