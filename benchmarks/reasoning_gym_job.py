"""A job on a reasoning-gym task and its curve: `python -m benchmarks.reasoning_gym_job --out FOLDER`.

A model of 0.8 M parameters learns to add up chains of digits from worked examples, nearly half of them wrong somewhere,
until it solves 45 % of some probe problems: it then knows sums, and errs as its examples do. A STAPO job takes it from
there: its problems come from the source `reasoning_gym`, the task's own scorer rewards, and a part of the problems is
held out. Once per seed; the curves go into one drawing.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.learning import Course, Experiment, run
from stapo_core.config import ReasoningGymGrader
from stapo_core.config.sources import ReasoningGymSource
from stapo_core.data import read_rows
from stapo_core.warmup import build_tokenizer

TASK = "chain_sum"
SHAPE = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
WORDS = ("State", "the", "final", "answer", "to", "following", "arithmetic", "problem", *"0123456789", *" +-=:,</>")
NUM_PROBLEMS, NUM_EXAMPLES, NUM_PROBE = 1500, 8000, 128
SPOILT_SHARE = 0.45


def prepare(folder: Path, seed: int, take: Callable[[Course], None]) -> dict[str, Any]:
    """The problems of the job, and a course none of whose examples is one of them."""
    rng = random.Random(seed)
    problems = source(seed, NUM_PROBLEMS)
    probe = read_rows(source(seed, NUM_PROBE, part=1))
    avoid = {row["prompt"] for row in [*read_rows(problems), *probe]}
    examples = [row["prompt"] for row in read_rows(source(seed, NUM_EXAMPLES, part=2)) if row["prompt"] not in avoid]

    def draw(num_examples: int) -> list[tuple[str, str]]:
        return [(prompt, maybe_spoil(rng, work_out(prompt))) for prompt in rng.choices(examples, k=num_examples)]

    take(Course(build_tokenizer(WORDS, r"[A-Za-z]+|."), draw, probe, 600, 0.45))
    return {"training_file": problems.model_dump()}


def source(seed: int, size: int, *, part: int = 0) -> ReasoningGymSource:
    """Problems of the task; other parts begin at other seeds of reasoning-gym, which makes problem n from seed + n."""
    config = SHAPE | {"size": size, "seed": 1_000_000 * (3 * seed + part)}
    return ReasoningGymSource(source="reasoning_gym", task=TASK, config=config)


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


EXPERIMENT = Experiment(
    name="reasoning_gym_job",
    title=f"A job on reasoning-gym's {TASK}",
    unit="mean reward by its own scorer",
    grader=ReasoningGymGrader(type="reasoning_gym"),
    train={
        "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
        "batch": {"num_prompts": 32, "group_size": 8},
        "sampling": {"max_prompt_tokens": 48, "max_response_tokens": 64},
        "optimizer": {"learning_rate": 3e-4, "schedule": "linear"},
        "evaluation": {"every_steps": 20, "num_samples": 2, "held_out_share": 0.1},
        "checkpoint": {"every_steps": 1000},
        "record_rollouts_every": 0,
    },
    prepare=prepare,
)

if __name__ == "__main__":
    sys.exit(run(EXPERIMENT, description=__doc__))
