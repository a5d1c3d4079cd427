"""A job graded by unit tests, from an untaught model to its curve: `python -m benchmarks.code_job --out FOLDER`.

A model of 0.8 M parameters learns one-line programs from examples, a part of them wrong, until it solves at least a
third of some probe tasks. A STAPO job with the `code` grader takes it from there: every response is run in the sandbox
against the tests of its row. Once per seed; the curves go into one drawing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.curves import Curve, draw_curves
from benchmarks.one_liners import PATTERN, WORDS, Task, draw_tasks, spoil
from stapo_core import events
from stapo_core.config import RunConfig
from stapo_core.config.graders.programs import CodeGrader
from stapo_core.graders import build_grader
from stapo_core.graders.score import Sample
from stapo_core.warmup import Lessons, answer, build_model, build_tokenizer, teach

NUM_TRAIN, NUM_HELD_OUT, NUM_PROBE = 2000, 200, 128
SPOILT_SHARE = 0.25
GRADER = CodeGrader(type="code", input="f = lambda x, y: {{sample.output_text}}", program="whole_text", timeout_s=2.0)
TRAIN: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
    "batch": {"num_prompts": 32, "group_size": 8},
    "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 32},
    "optimizer": {"learning_rate": 3e-4, "schedule": "linear"},
    "evaluation": {"every_steps": 20, "num_samples": 2},
    "checkpoint": {"every_steps": 1000},
    "record_rollouts_every": 0,
}


@dataclass(frozen=True)
class Result:
    """One seed: the reward of each step, and of the held-out tasks by step."""

    seed: int
    rewards: list[float]
    held_out: dict[int, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.code_job", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for models, runs, curves.json and curves.svg")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="updates of each job")
    asked = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    console = Console()
    results = [run_seed(asked.out / f"seed-{seed}", seed, asked.steps, console) for seed in asked.seeds]
    _report(results, asked.out, console)
    return 0


def run_seed(folder: Path, seed: int, num_steps: int, console: Console) -> Result:
    """A base model, a job, and what came of it. Whatever lies in the folder is used again."""
    if not (folder / "base").exists():
        make_base(folder, seed, console)
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    config = RunConfig.model_validate(
        {
            "model": str((folder / "base").resolve()),
            "training_file": str((folder / "train.jsonl").resolve()),
            "validation_file": str((folder / "held-out.jsonl").resolve()),
            "grader": GRADER.model_dump(),
            "seed": seed,
            "train": TRAIN | {"num_steps": num_steps},
        }
    )
    (run_dir / "config.json").write_text(config.model_dump_json(indent=2))
    environment = os.environ | {"STAPO_USER_CODE": "sandboxed"}
    subprocess.run([sys.executable, "-m", "stapo_core", str(run_dir)], env=environment, check=True)
    result = read_result(run_dir / "events.jsonl", seed)
    for step, reward in result.held_out.items():
        console.print(f"seed {seed}: {reward:.1%} of held-out tasks solved after step {step}", highlight=False)
    return result


def make_base(folder: Path, seed: int, console: Console) -> None:
    """Writes `base/`, `train.jsonl` and `held-out.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    tasks = draw_tasks(rng, NUM_HELD_OUT + NUM_PROBE + NUM_TRAIN)
    held_out, probe = tasks[:NUM_HELD_OUT], tasks[NUM_HELD_OUT : NUM_HELD_OUT + NUM_PROBE]
    avoid = frozenset([*held_out, *probe])

    def draw(num_examples: int) -> list[tuple[str, str]]:
        drawn = draw_tasks(rng, num_examples, avoid=avoid)
        return [(task.prompt, _maybe_spoil(rng, task.solution)) for task in drawn]

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(WORDS, PATTERN)
    model = build_model(tokenizer)
    rows = [task.row(rng) for task in probe]
    losses = teach(
        model, tokenizer, Lessons(draw, lambda step: solve(model, tokenizer, rows, seed=step), 400), lambda *_: None
    )
    console.print(f"seed {seed}: {len(losses)} supervised steps, loss {losses[-1]:.3f}", highlight=False)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    _write(folder / "held-out.jsonl", held_out, rng)
    _write(folder / "train.jsonl", tasks[NUM_HELD_OUT + NUM_PROBE :], rng)


def solve(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict[str, Any]], *, seed: int
) -> float:
    """The share of rows whose tests one response passes."""
    answers = answer(model, tokenizer, [row["prompt"] for row in rows], seed=seed)
    pool = build_grader(GRADER, allows_user_code=True)
    try:
        verdicts = pool.judge([Sample(row, text) for row, text in zip(rows, answers, strict=True)])
    finally:
        pool.close()
    return statistics.fmean(score.value for score in verdicts.total)


def read_result(spool: Path, seed: int) -> Result:
    """The curves that a trainer wrote."""
    rewards: list[float] = []
    held_out: dict[int, float] = {}
    for line in spool.read_bytes().splitlines():
        match events.parse_event(line):
            case events.StepDone() as done:
                rewards.append(done.metrics["reward/mean"] or 0.0)
            case events.Evaluated() as evaluated:
                held_out[evaluated.step] = evaluated.metrics["eval/reward_mean"] or 0.0
    return Result(seed, rewards, held_out)


def _report(results: Sequence[Result], out: Path, console: Console) -> None:
    first, last = ([list(result.held_out.values())[place] for result in results] for place in (0, -1))
    for name, values in (("before", first), ("after", last)):
        spread = f"{min(values):.1%} to {max(values):.1%}"
        console.print(f"held-out tasks solved {name}: {statistics.fmean(values):.1%} ({spread})", highlight=False)
    (out / "curves.json").write_text(
        json.dumps([{"seed": r.seed, "rewards": r.rewards, "held_out": r.held_out} for r in results], indent=1) + "\n"
    )
    curves = [Curve(f"seed {r.seed}", tuple(enumerate(r.rewards, 1)), tuple(r.held_out.items())) for r in results]
    drawing = draw_curves(curves, title="A job graded by unit tests", unit="share of programs that pass")
    (out / "curves.svg").write_text(drawing)
    console.print(f"{out / 'curves.svg'}", highlight=False)


def _maybe_spoil(rng: random.Random, solution: str) -> str:
    return spoil(rng, solution) if rng.random() < SPOILT_SHARE else solution


def _write(path: Path, tasks: Sequence[Task], rng: random.Random) -> None:
    path.write_text("".join(json.dumps(task.row(rng)) + "\n" for task in tasks))


if __name__ == "__main__":
    sys.exit(main())
