"""Some bfloat16 steps of the whole trainer on a random Qwen3: speed, memory, entropy, and what stays finite.

Knows the trainer from its config to its events, and reads the figures from the events alone, as a user would.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.stopwatch import peak_mb
from benchmarks.workloads import REWARDED, Size, Workload, prepare
from stapo_core.build import build
from stapo_core.config import RunConfig
from stapo_core.spool import Spool
from stapo_core.train import train


@dataclass(frozen=True, slots=True)
class Scale:
    """The model, prompts and responses, and how many of them a step takes."""

    size: Size
    workload: Workload
    num_prompts: int
    group_size: int
    num_steps: int


FULL = Scale(
    Size(layers=28, width=1024, inner=3072, heads=16, vocabulary=151_936), Workload(64, 128), 8, 8, num_steps=20
)
"""508 million parameters."""
SMALL = Scale(Size(layers=2, width=64, inner=96, heads=4, vocabulary=256), Workload(8, 24), 4, 4, num_steps=3)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run said, and the most memory it held (10^6 bytes, of the GPU where there is one)."""

    num_parameters: int
    steps: list[dict[str, Any]]
    """Its step events in order."""
    warnings: list[str]
    peak_mb: float

    @property
    def not_finite(self) -> list[str]:
        """The metrics that were not finite in some step, by name."""
        return sorted({key for step in self.steps for key in step["flags"]})

    def series(self, key: str) -> list[float]:
        """A metric in every step that has it."""
        return [step["metrics"][key] for step in self.steps if step["metrics"].get(key) is not None]


def train_in_bfloat16(scale: Scale, device: torch.device) -> Trained:
    """Makes model, tokenizer and problems, trains, and throws all of it away; the checkpoint at the end is written."""
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        folder = Path(scratch)
        prepare(folder, scale.size, scale.workload)
        run_dir = folder / "run"
        run_dir.mkdir()
        (run_dir / "config.json").write_text(json.dumps(_config(folder, scale)))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        _run(run_dir)
        events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return Trained(
        num_parameters=next(event["num_parameters"] for event in events if event["type"] == "started"),
        steps=[event for event in events if event["type"] == "step"],
        warnings=[event["message"] for event in events if event["type"] == "warning"],
        peak_mb=torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_mb(),
    )


def _config(folder: Path, scale: Scale) -> dict[str, Any]:
    prompt, response = scale.workload.prompt_tokens, scale.workload.response_tokens
    batch = {
        "num_prompts": scale.num_prompts,
        "group_size": scale.group_size,
        "max_tokens_per_microbatch": 16 * (prompt + response),
    }
    return {
        "model": str(folder / "model"),
        "training_file": str(folder / "train.jsonl"),
        "grader": {"type": "string_check", "operation": "like", "reference": REWARDED},
        "train": {
            "algorithm": {"kind": "stapo"},
            "dtype": "bfloat16",
            "num_steps": scale.num_steps,
            "batch": batch,
            "sampling": {"max_prompt_tokens": prompt, "max_response_tokens": response},
            "optimizer": {"learning_rate": 1e-5, "warmup_steps": 2},
            "checkpoint": {"every_steps": 10**6, "every_s": 10.0**6},
            "record_rollouts_every": 0,
        },
    }


def _run(run_dir: Path) -> None:
    config = RunConfig.model_validate_json((run_dir / "config.json").read_bytes())
    spool = Spool(run_dir / "events.jsonl")
    try:
        run = build(config, run_dir, spool=spool, should_stop=lambda: False)
        try:
            train(run)
        finally:
            run.grading.close()
            run.sampler.close()
    finally:
        spool.close()


def print_trained(trained: Trained, console: Console) -> bool:
    """Prints the figures, the first step left out of the speeds; whether every step was taken with finite metrics."""
    step_s = statistics.median(trained.series("speed/step_s")[1:])
    tokens_per_s = statistics.median(trained.series("speed/tokens_per_s")[1:])
    entropies = trained.series("policy/entropy") or [math.nan]  # a skipped step has none
    apart = trained.series("sampler/logp_diff_mean") or [math.nan]
    furthest = trained.series("sampler/logp_diff_max") or [math.nan]
    is_fine = not trained.not_finite and not trained.warnings
    table = Table(title=f"{len(trained.steps)} steps in bfloat16, {trained.num_parameters / 1e6:,.1f} M parameters")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("steps/s, median", f"{1 / step_s:.3f}")
    table.add_row("response tokens/s, sampled and learned, median", f"{tokens_per_s:,.0f}")
    table.add_row("peak memory, MB", f"{trained.peak_mb:,.0f}")
    table.add_row("entropy of the first step, nats", f"{entropies[0]:.4f}")
    table.add_row("entropy of the last step, nats", f"{entropies[-1]:.4f}")
    table.add_row("log p of sampler and trainer apart, mean", f"{statistics.fmean(apart):.2e}")
    table.add_row("log p of sampler and trainer apart, most", f"{max(furthest):.2e}")
    table.add_row("metrics that were not finite", ", ".join(trained.not_finite) or "none")
    table.add_row("warnings", "; ".join(trained.warnings) or "none")
    console.print(table)
    return is_fine
