"""Named settings, for whoever writes a job. Must stay free of torch.

The paper's recipe and JustRL's take several GPUs; the demo takes two cores.
"""

from __future__ import annotations

from typing import Any

from stapo_core.config import (
    Algorithm,
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    JustrlConfig,
    OptimizerConfig,
    SamplingConfig,
    StapoConfig,
    TrainConfig,
)

DEMO_TRAIN: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
    "num_steps": 80,
    "batch": {"num_prompts": 32, "group_size": 8},
    "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 64},
    "optimizer": {"learning_rate": 3e-4, "schedule": "linear"},
    "evaluation": {"every_steps": 20, "num_samples": 2},
    "checkpoint": {"every_steps": 20},
    "record_rollouts_every": 10,
}


def _recipe(algorithm: Algorithm) -> TrainConfig:
    """256 prompts x 8 in four mini-batches of 64 prompts, 1,024 + 15,360 tokens, AdamW at 1e-6 after 10 updates.

    The paper evaluates with responses of up to 20,480 tokens; ours are cut at the 15,360 of training there too.
    """
    return TrainConfig(
        algorithm=algorithm,
        batch=BatchConfig(num_prompts=256, group_size=8, num_minibatches=4, max_tokens_per_microbatch=16_384),
        sampling=SamplingConfig(temperature=1.0, max_prompt_tokens=1024, max_response_tokens=15_360),
        optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10, weight_decay=0.1, max_grad_norm=1.0),
        evaluation=EvaluationConfig(every_steps=5, num_samples=32, temperature=1.0),
        checkpoint=CheckpointConfig(every_steps=50, every_s=3600.0),
        gradient_checkpointing=True,
    )


PRESETS: dict[str, TrainConfig] = {
    "paper-1.7b": _recipe(StapoConfig()),
    "paper-8b": _recipe(StapoConfig()),
    "paper-14b": _recipe(StapoConfig()),
    "justrl-1.5b": _recipe(JustrlConfig()),
    "demo": TrainConfig.model_validate(DEMO_TRAIN),
}
"""By name. The three of STAPO's paper (arXiv 2602.15620) differ in the base model alone: Qwen3-{1.7B, 8B, 14B}-Base."""
