"""Runs our trainer for some steps, the real loop with its reports, and writes what each step cost: one process.

`python -m benchmarks.run_ours WORK_FOLDER STEPS ALGORITHM`: a folder of `workloads.prepare`; `ours.json` appears in it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import Stopwatch
from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, REWARDED
from stapo_core.build import build
from stapo_core.config import RunConfig
from stapo_core.spool import Spool
from stapo_core.train import train

_ALGORITHMS: dict[str, dict[str, Any]] = {
    # The peer has neither dynamic sampling nor the overlong penalty on: what is computed must be the same.
    "dapo": {"kind": "dapo", "dynamic_sampling_rounds": 0, "overlong_share": 0.0},
    "stapo": {"kind": "stapo"},
}


def main(folder: Path, num_steps: int, algorithm: str) -> None:
    """Trains and measures."""
    shape = json.loads((folder / "workload.json").read_text())
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir()
    spool = Spool(run_dir / "events.jsonl")
    run = build(_config(folder, shape, num_steps, algorithm), run_dir, spool=spool, should_stop=lambda: False)
    watch = Stopwatch()
    watch.watch(run.sampler, "sample", "generate_cpu_s")
    watch.watch(run.learner, "update", "update_cpu_s")
    watch.watch(run.report, "step_done", "report_cpu_s")
    step_done = run.report.step_done

    def step_done_and_lap(step: int, groups: Any, learned: Any) -> None:
        step_done(step, groups, learned)
        watch.lap(tokens=sum(len(response.token_ids) for group in groups for response in group.responses))

    run.report.step_done = step_done_and_lap  # type: ignore[method-assign]
    train(run)
    spool.close()
    (folder / "ours.json").write_text(json.dumps(watch.laps))


def _config(folder: Path, shape: dict[str, int], num_steps: int, algorithm: str) -> RunConfig:
    longest = shape["prompt_tokens"] + shape["response_tokens"]
    return RunConfig.model_validate(
        {
            "model": folder / "model",
            "training_file": folder / "train.jsonl",
            "grader": {"type": "string_check", "operation": "like", "reference": REWARDED},
            "train": {
                "algorithm": _ALGORITHMS[algorithm],
                "num_steps": num_steps,
                "batch": {
                    "num_prompts": NUM_PROMPTS,
                    "group_size": GROUP_SIZE,
                    "max_tokens_per_microbatch": 16 * longest,  # what the peer takes at a time
                },
                "sampling": {
                    "max_prompt_tokens": shape["prompt_tokens"],
                    "max_response_tokens": shape["response_tokens"],
                },
                "optimizer": {"learning_rate": 1e-5, "warmup_steps": 0, "weight_decay": 0.0},
                "checkpoint": {"every_steps": 10**6, "every_s": 10.0**6},
                "record_rollouts_every": 0,
            },
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
