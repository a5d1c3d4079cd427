"""A job on a reasoning-gym task and its curve: `python -m benchmarks.reasoning_gym_job --out FOLDER`.

A model of 0.8 M parameters learns to add up chains of digits from worked examples, nearly half of them wrong somewhere,
until it solves 45 % of some probe problems: it then knows sums, and errs as its examples do. A STAPO job takes it from
there: its problems come from the source `reasoning_gym`, the task's own scorer rewards, and a part of the problems is
held out. Once per seed; the curves go into one drawing.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.code_job import Result, read_result
from benchmarks.curves import Curve, draw_curves
from stapo_core.config import ReasoningGymGrader, RunConfig
from stapo_core.config.sources import ReasoningGymSource
from stapo_core.data import read_rows
from stapo_core.graders import build_grader
from stapo_core.graders.score import Sample
from stapo_core.warmup import Lessons, answer, build_model, build_tokenizer, teach

TASK = "chain_sum"
SHAPE = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
SIGNS = " +-=:,</>"
SENTENCE = ("State", "the", "final", "answer", "to", "following", "arithmetic", "problem")
NUM_PROBLEMS, NUM_EXAMPLES, NUM_PROBE = 1500, 8000, 128
SPOILT_SHARE = 0.45
ENOUGH = 0.45
GRADER = ReasoningGymGrader(type="reasoning_gym")
TRAIN: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
    "batch": {"num_prompts": 32, "group_size": 8},
    "sampling": {"max_prompt_tokens": 48, "max_response_tokens": 64},
    "optimizer": {"learning_rate": 3e-4, "schedule": "linear"},
    "evaluation": {"every_steps": 20, "num_samples": 2, "held_out_share": 0.1},
    "checkpoint": {"every_steps": 1000},
    "record_rollouts_every": 0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoning_gym_job", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for models, runs, curves.json and curves.svg")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="updates of each job")
    asked = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    console = Console()
    results = [run_seed(asked.out / f"seed-{seed}", seed, asked.steps, console) for seed in asked.seeds]
    report(results, asked.out, console)
    return 0


def run_seed(folder: Path, seed: int, num_steps: int, console: Console) -> Result:
    """A base model, a job, and what came of it. A base model that lies in the folder is used again."""
    problems = source(seed, NUM_PROBLEMS)
    if not (folder / "base").exists():
        make_base(folder / "base", seed, console)
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    config = RunConfig.model_validate(
        {
            "model": str((folder / "base").resolve()),
            "training_file": problems.model_dump(),
            "grader": GRADER.model_dump(),
            "seed": seed,
            "train": TRAIN | {"num_steps": num_steps},
        }
    )
    (run_dir / "config.json").write_text(config.model_dump_json(indent=2))
    subprocess.run([sys.executable, "-m", "stapo_core", str(run_dir)], check=True)
    result = read_result(run_dir / "events.jsonl", seed)
    for step, reward in result.held_out.items():
        console.print(f"seed {seed}: mean reward {reward:.3f} on held-out problems after step {step}", highlight=False)
    return result


def source(seed: int, size: int, *, part: int = 0) -> ReasoningGymSource:
    """Problems of the task; other parts begin at other seeds of reasoning-gym, which makes problem n from seed + n."""
    config = SHAPE | {"size": size, "seed": 1_000_000 * (3 * seed + part)}
    return ReasoningGymSource(source="reasoning_gym", task=TASK, config=config)


def make_base(folder: Path, seed: int, console: Console) -> None:
    """Teaches a model and writes it into `folder`; no example is a problem of the job."""
    rng = random.Random(seed)
    probe = read_rows(source(seed, NUM_PROBE, part=1))
    avoid = {row["prompt"] for row in [*read_rows(source(seed, NUM_PROBLEMS)), *probe]}
    examples = [row["prompt"] for row in read_rows(source(seed, NUM_EXAMPLES, part=2)) if row["prompt"] not in avoid]

    def draw(num_examples: int) -> list[tuple[str, str]]:
        return [(prompt, maybe_spoil(rng, work_out(prompt))) for prompt in rng.choices(examples, k=num_examples)]

    torch.manual_seed(seed)
    tokenizer = build_tokenizer((*SENTENCE, *"0123456789", *SIGNS), r"[A-Za-z]+|.")
    model = build_model(tokenizer)
    lessons = Lessons(draw, lambda step: mean_reward(model, tokenizer, probe, seed=step), 600, ENOUGH)
    losses = teach(model, tokenizer, lessons, lambda *_: None)
    console.print(f"seed {seed}: {len(losses)} supervised steps, loss {losses[-1]:.3f}", highlight=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def work_out(prompt: str) -> str:
    """`... problem: 4 - 1 - 7 =` worked out: `4-1=3,3-7=-4 <answer>-4</answer>`."""
    first, *rest = prompt.rpartition(": ")[2].removesuffix(" =").split(" ")
    total, steps = int(first), []
    for sign, digit in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(digit) if sign == "+" else total - int(digit)
        steps.append(f"{total}{sign}{digit}={after}")
        total = after
    return f"{','.join(steps)} <answer>{total}</answer>"


def maybe_spoil(rng: random.Random, solution: str) -> str:
    """A share of the solutions with one digit replaced by another."""
    if rng.random() >= SPOILT_SHARE:
        return solution
    place = rng.choice([place for place, character in enumerate(solution) if character.isdigit()])
    return solution[:place] + rng.choice("0123456789") + solution[place + 1 :]


def mean_reward(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict[str, Any]], *, seed: int
) -> float:
    """What the task's scorer gives to one response per row."""
    answers = answer(model, tokenizer, [row["prompt"] for row in rows], seed=seed)
    pool = build_grader(GRADER)
    try:
        verdicts = pool.judge([Sample(row, text) for row, text in zip(rows, answers, strict=True)])
    finally:
        pool.close()
    return statistics.fmean(score.value for score in verdicts.total)


def report(results: Sequence[Result], out: Path, console: Console) -> None:
    """Prints the rewards before and after, and writes `curves.json` and `curves.svg`."""
    first, last = ([list(result.held_out.values())[place] for result in results] for place in (0, -1))
    for name, values in (("before", first), ("after", last)):
        spread = f"{min(values):.3f} to {max(values):.3f}"
        console.print(f"mean reward on held-out problems {name}: {statistics.fmean(values):.3f} ({spread})")
    (out / "curves.json").write_text(
        json.dumps([{"seed": r.seed, "rewards": r.rewards, "held_out": r.held_out} for r in results], indent=1) + "\n"
    )
    curves = [Curve(f"seed {r.seed}", tuple(enumerate(r.rewards, 1)), tuple(r.held_out.items())) for r in results]
    drawing = draw_curves(curves, title=f"A job on reasoning-gym's {TASK}", unit="mean reward by its own scorer")
    (out / "curves.svg").write_text(drawing)
    console.print(f"{out / 'curves.svg'}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
