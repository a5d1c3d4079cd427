"""A job graded by unit tests, from an untaught model to its curve: `python -m benchmarks.code_job --out FOLDER`.

A model of 0.8 M parameters learns one-line programs from examples, a part of them wrong, until it solves at least a
third of some probe tasks. A STAPO job with the `code` grader takes it from there: every response is run in the sandbox
against the tests of its row. Once per seed; the curves go into one drawing.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.learning import Course, Experiment, run
from benchmarks.one_liners import PATTERN, WORDS, Task, draw_tasks, spoil
from stapo_core.config.graders.programs import CodeGrader
from stapo_core.warmup import build_tokenizer

NUM_TRAIN, NUM_HELD_OUT, NUM_PROBE = 2000, 200, 128
SPOILT_SHARE = 0.25
GRADER = CodeGrader(type="code", input="f = lambda x, y: {{sample.output_text}}", program="whole_text", timeout_s=2.0)


def prepare(folder: Path, seed: int, take: Callable[[Course], None]) -> dict[str, str]:
    """Tasks for the job, others held out, and a course that shows neither."""
    rng = random.Random(seed)
    tasks = draw_tasks(rng, NUM_HELD_OUT + NUM_PROBE + NUM_TRAIN)
    held_out, probe = tasks[:NUM_HELD_OUT], tasks[NUM_HELD_OUT : NUM_HELD_OUT + NUM_PROBE]
    avoid = frozenset([*held_out, *probe])

    def draw(num_examples: int) -> list[tuple[str, str]]:
        drawn = draw_tasks(rng, num_examples, avoid=avoid)
        return [(task.prompt, _maybe_spoil(rng, task.solution)) for task in drawn]

    take(Course(build_tokenizer(WORDS, PATTERN), draw, [task.row(rng) for task in probe], 400))
    return {
        "validation_file": _write(folder / "held-out.jsonl", held_out, rng),
        "training_file": _write(folder / "train.jsonl", tasks[NUM_HELD_OUT + NUM_PROBE :], rng),
    }


def _maybe_spoil(rng: random.Random, solution: str) -> str:
    return spoil(rng, solution) if rng.random() < SPOILT_SHARE else solution


def _write(path: Path, tasks: Sequence[Task], rng: random.Random) -> str:
    if not path.exists():  # a course that is not taken again leaves the random numbers elsewhere
        path.write_text("".join(json.dumps(task.row(rng)) + "\n" for task in tasks))
    return str(path)


EXPERIMENT = Experiment(
    name="code_job",
    title="A job graded by unit tests",
    unit="share of programs that pass",
    grader=CodeGrader(
        type="code", input="f = lambda x, y: {{sample.output_text}}", program="whole_text", timeout_s=2.0
    ),
    train={
        "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
        "batch": {"num_prompts": 32, "group_size": 8},
        "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 32},
        "optimizer": {"learning_rate": 3e-4, "schedule": "linear"},
        "evaluation": {"every_steps": 20, "num_samples": 2},
        "checkpoint": {"every_steps": 1000},
        "record_rollouts_every": 0,
    },
    prepare=prepare,
)

if __name__ == "__main__":
    sys.exit(run(EXPERIMENT, description=__doc__))
