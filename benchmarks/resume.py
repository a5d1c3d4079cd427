"""Interrupts a run in every one of its steps, resumes it, and compares all that it leaves, bit for bit.

`python -m benchmarks.resume` from the repository's root. A tiny model, real parts: each interrupted run is stopped at
a safe point inside its step, its parts are thrown away, and a second run goes on from the checkpoint on disk.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stapo_core.build import build
from stapo_core.config import RunConfig
from stapo_core.events import Event, StepDone
from stapo_core.spool import Spool
from stapo_core.train import Outcome, train
from tests.stapo_core.tiny import make_run_folder

NOT_REPEATABLE = ("speed/", "memory/")
SETTINGS: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "tau_p": 0.02, "entropy_window": 3},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5, "schedule": "cosine"},
    "evaluation": {"every_steps": 7, "num_samples": 2},
    "checkpoint": {"every_steps": 9, "keep": 2},
    "record_rollouts_every": 10,
}


class Questions:
    """Answers whether to stop: with yes from question `stop_at` on, with no where there is none."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.number = 0
        self.stop_at = stop_at

    def __call__(self) -> bool:
        """Counts the question and answers it."""
        self.number += 1
        return self.stop_at is not None and self.number > self.stop_at


class MarkingSpool(Spool):
    """Takes down how many questions had been asked when each step was done."""

    def __init__(self, path: Path, questions: Questions) -> None:
        super().__init__(path)
        self.questions = questions
        self.marks = [0]

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Writes the event."""
        super().emit(kind, **fields)
        if kind is StepDone:
            self.marks.append(self.questions.number)


def go(run_dir: Path, questions: Questions) -> tuple[Outcome, list[int]]:
    """Runs, or goes on with, what the directory holds; the outcome, and the questions asked by the end of each step."""
    spool = MarkingSpool(run_dir / "events.jsonl", questions)
    config = RunConfig.model_validate_json((run_dir / "config.json").read_bytes())
    run = build(config, run_dir, spool=spool, should_stop=questions)
    try:
        return train(run), spool.marks
    finally:
        run.grading.close()
        run.sampler.close()
        spool.close()


def remains(run_dir: Path) -> dict[str, Any]:
    """All that two runs must agree in: weights, optimizer, RNG, cursor, counters, metrics, the best checkpoint."""
    last = sorted((run_dir / "checkpoints").iterdir())[-1]
    state, weights = load_file(last / "trainer" / "state.safetensors"), load_file(last / "model.safetensors")
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    metrics = {  # where a step was done again, what was said last
        (event["type"], event["step"], key): value
        for event in events
        if event["type"] in ("step", "evaluation")
        for key, value in event["metrics"].items()
        if not key.startswith(NOT_REPEATABLE)
    }
    return {
        "tensors": {name: _bytes(tensor) for name, tensor in (state | weights).items() if "rng/" not in name},
        "RNG tensors": {name: _bytes(tensor) for name, tensor in state.items() if "rng/" in name},
        "RNG, cursor and counters": json.loads((last / "trainer" / "state.json").read_bytes()),
        "metrics": metrics,
        "kept checkpoints": _best(run_dir),
    }


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else str(tensor.item()).encode()


def _best(run_dir: Path) -> list[str]:
    folders = sorted((run_dir / "checkpoints").iterdir())
    marked = [each.name for each in folders if json.loads((each / "manifest.json").read_bytes())["best"]]
    return marked[-1:]


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The parts that differ, by name."""
    return [name for name in wanted if found[name] != wanted[name]]


def interrupt(step: int, marks: list[int]) -> int:
    """The question inside `step` at which to stop: first, last and those between take turns."""
    first, last = marks[step - 1], marks[step] - 1
    return first + (last - first) * ((step * 7) % 10) // 9


def main(arguments: list[str] | None = None, say: Callable[[str], Any] = lambda line: print(line, flush=True)) -> int:
    """Prints one line per step and the count; exit code 1 when any run differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="steps of the run; it is interrupted in each of them")
    num_steps = parser.parse_args(arguments).steps
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        whole = make_run_folder(root / "whole", num_steps=num_steps, **SETTINGS)
        _, marks = go(whole, Questions())
        wanted = remains(whole)
        num_equal = 0
        for step in range(1, num_steps + 1):
            cut = make_run_folder(root / f"cut-{step}", num_steps=num_steps, **SETTINGS)
            stopped, _ = go(cut, Questions(interrupt(step, marks)))
            go(cut, Questions())
            wrong = differences(remains(cut), wanted)
            num_equal += stopped.reason == "stopped" and not wrong
            say(f"stopped in step {step}, resumed after {stopped.step}: {', '.join(wrong) or 'equal'}")
    say(f"{num_equal}/{num_steps} interrupted runs equal the one that never stopped, bit for bit")
    return 0 if num_equal == num_steps else 1


if __name__ == "__main__":
    sys.exit(main())
