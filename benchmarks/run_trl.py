"""Runs TRL's GRPOTrainer for some steps and writes what each step cost: one process, the peer of `run_ours`.

`python -m benchmarks.run_trl WORK_FOLDER STEPS`: a folder of `workloads.prepare`; `trl.json` appears in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.stopwatch import Stopwatch
from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, REWARDED

_MICROBATCH = 16


class _Laps(TrainerCallback):  # type: ignore[misc]
    """Ends a lap with every optimizer step."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.tokens = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.watch.lap(tokens=self.tokens)


def main(folder: Path, num_steps: int) -> None:
    """Trains and measures."""
    shape = json.loads((folder / "workload.json").read_text())
    trainer = make_trainer(folder, shape["response_tokens"], max_steps=num_steps)
    watch = Stopwatch()
    laps = _Laps(watch)
    watch.watch(trainer, "_generate_single_turn", "generate_cpu_s")
    generate = trainer._generate_and_score_completions

    def generate_and_count(inputs: Any) -> Any:
        outputs = generate(inputs)
        laps.tokens = int(outputs["completion_mask"].sum())
        return outputs

    trainer._generate_and_score_completions = generate_and_count
    trainer.add_callback(laps)
    trainer.train()
    for lap in watch.laps:  # its loss, backward pass and optimizer are all that is not generation
        lap["update_cpu_s"] = lap["cpu_s"] - lap["generate_cpu_s"]
    (folder / "trl.json").write_text(json.dumps(watch.laps))


def make_trainer(folder: Path, response_tokens: int, *, max_steps: int = 1, loss_type: str = "dapo") -> Any:
    """A trainer set up as ours is: float32, one update per rollout, no KL, no recomputation, the same clip range."""
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=_MICROBATCH,
        gradient_accumulation_steps=NUM_PROMPTS * GROUP_SIZE // _MICROBATCH,
        num_generations=GROUP_SIZE,
        num_iterations=1,
        max_completion_length=response_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type=loss_type,
        scale_rewards="group",
        mask_truncated_completions=False,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch",
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        seed=0,
        disable_tqdm=True,
        max_steps=max_steps,
    )
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32", local_files_only=True),
        reward_funcs=_reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(
            [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        ),
        processing_class=AutoTokenizer.from_pretrained(folder / "model", local_files_only=True),
    )


def _reward(completions: list[str], **_: Any) -> list[float]:
    return [float(REWARDED in text) for text in completions]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
