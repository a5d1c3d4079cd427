"""Named settings as plain data, for whoever writes a job. Must stay free of torch."""

from __future__ import annotations

from typing import Any

DEMO_TRAIN: dict[str, Any] = {
    "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
    "num_steps": 100,
    "batch": {"num_prompts": 16, "group_size": 8},
    "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 64},
    "optimizer": {"learning_rate": 3e-4},
    "evaluation": {"every_steps": 25},
    "checkpoint": {"every_steps": 50},
    "record_rollouts_every": 10,
}
