"""What a job teaches a small model, once per seed: the command line, the runs and the drawing of an experiment.

Knows base models, trainers and curves; the task, its examples and its grader are the experiment's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.curves import Curve, draw_curves
from stapo_core import events
from stapo_core.config import Grader, RunConfig
from stapo_core.graders import GraderPool, build_grader
from stapo_core.graders.score import Sample
from stapo_core.warmup import TARGET_ACCURACY, Lessons, answer, build_model, teach


@dataclass(frozen=True)
class Course:
    """What a base model is taught: so many pairs of prompt and solution at a time, until its probe earns enough."""

    tokenizer: PreTrainedTokenizerFast
    draw: Callable[[int], list[tuple[str, str]]]
    probe: Sequence[Mapping[str, Any]]
    max_steps: int
    enough: float = TARGET_ACCURACY


@dataclass(frozen=True)
class Experiment:
    """A job, and what its drawing says.

    `prepare` is given a folder and a seed, and what takes a course there; it gives the data fields of the RunConfig.
    """

    name: str
    title: str
    unit: str
    grader: Grader
    train: Mapping[str, Any]
    prepare: Callable[[Path, int, Callable[[Course], None]], Mapping[str, Any]]


@dataclass(frozen=True)
class Result:
    """One seed: the reward of each step, and of the held-out problems by step."""

    seed: int
    rewards: list[float]
    held_out: dict[int, float]


def run(experiment: Experiment, arguments: Sequence[str] | None = None, *, description: str | None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{experiment.name}", description=description)
    parser.add_argument("--out", type=Path, required=True, help="a folder for models, runs, curves.json and curves.svg")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="updates of each job")
    asked = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    console = Console(highlight=False)
    results = [run_seed(experiment, asked.out / f"seed-{seed}", seed, asked.steps, console) for seed in asked.seeds]
    report(experiment, results, asked.out, console)
    return 0


def run_seed(experiment: Experiment, folder: Path, seed: int, num_steps: int, console: Console) -> Result:
    """A base model, a job, and what came of it. A base model that lies in the folder is used again."""
    base = folder / "base"

    def take(course: Course) -> None:
        if not base.exists():
            console.print(f"seed {seed}: {teach_base(course, experiment.grader, base, seed)}")

    folder.mkdir(parents=True, exist_ok=True)
    data = experiment.prepare(folder.resolve(), seed, take)
    config = RunConfig.model_validate(
        {
            "model": str(base.resolve()),
            "grader": experiment.grader.model_dump(),
            "seed": seed,
            "train": {**experiment.train, "num_steps": num_steps},
            **data,
        }
    )
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.json").write_text(config.model_dump_json(indent=2))
    environment = os.environ | {"STAPO_USER_CODE": "sandboxed"}
    subprocess.run([sys.executable, "-m", "stapo_core", str(run_dir)], env=environment, check=True)
    result = read_result(run_dir / "events.jsonl", seed)
    for step, reward in result.held_out.items():
        console.print(f"seed {seed}: mean reward {reward:.1%} on held-out problems after step {step}")
    return result


def teach_base(course: Course, grader: Grader, folder: Path, seed: int) -> str:
    """Writes a model that has taken the course; says how it went."""
    torch.manual_seed(seed)
    model = build_model(course.tokenizer)
    pool = build_grader(grader, allows_user_code=True)

    def earn(step: int) -> float:
        return mean_reward(model, course, pool, seed=step)

    try:
        lessons = Lessons(course.draw, earn, course.max_steps, course.enough)
        losses = teach(model, course.tokenizer, lessons, lambda *_: None)
    finally:
        pool.close()
    model.save_pretrained(folder)
    course.tokenizer.save_pretrained(folder)
    return f"{len(losses)} supervised steps, loss {losses[-1]:.3f}"


def mean_reward(model: Qwen3ForCausalLM, course: Course, pool: GraderPool, *, seed: int) -> float:
    """What the grader gives to one response per row of the probe."""
    answers = answer(model, course.tokenizer, [row["prompt"] for row in course.probe], seed=seed)
    verdicts = pool.judge([Sample(row, text) for row, text in zip(course.probe, answers, strict=True)])
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


def report(experiment: Experiment, results: Sequence[Result], out: Path, console: Console) -> None:
    """Prints the held-out rewards over the seeds, and writes `curves.json` and `curves.svg`."""
    for step in results[0].held_out:
        values = [result.held_out[step] for result in results]
        spread = f"{min(values):.1%} to {max(values):.1%}"
        console.print(f"held out, after step {step}: {statistics.fmean(values):.1%} ({spread})")
    (out / "curves.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    curves = [Curve(f"seed {r.seed}", tuple(enumerate(r.rewards, 1)), tuple(r.held_out.items())) for r in results]
    (out / "curves.svg").write_text(draw_curves(curves, title=experiment.title, unit=experiment.unit))
    console.print(f"{out / 'curves.svg'}")
