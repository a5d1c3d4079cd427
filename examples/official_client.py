"""The dialect's official client, unchanged, against this service: upload, train, watch, list checkpoints.

Run `make demo` first and leave it up, or `make up`; then, with the key that it names:
`STAPO_API_KEY=$(cat …/api_key) .venv/bin/python examples/official_client.py`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

HERE = Path(__file__).parent
METHOD: Any = {
    "type": "reinforcement",
    "reinforcement": {
        "grader": {"type": "numeric", "reference": "{{item.answer}}"},
        "config": {
            "algorithm": {"kind": "stapo", "entropy_scope": "all_tokens"},
            "num_steps": 20,
            "batch": {"num_prompts": 16, "group_size": 8},
            "sampling": {"max_prompt_tokens": 32, "max_response_tokens": 64},
            "optimizer": {"learning_rate": 3e-4},
        },
    },
}


def main() -> None:
    """Trains the demo's base model for twenty steps."""
    base_url = os.environ.get("STAPO_API_URL", "http://127.0.0.1:8000") + "/v1"
    client = OpenAI(base_url=base_url, api_key=os.environ["STAPO_API_KEY"])
    with (HERE / "sums.jsonl").open("rb") as file:
        problems = client.files.create(file=file, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="stapo-demo-base", training_file=problems.id, method=METHOD, seed=1)
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(2.0)
        job = client.fine_tuning.jobs.retrieve(job.id)
        print(job.status, getattr(job, "step", 0))
    for event in client.fine_tuning.jobs.list_events(job.id, limit=100):
        print(event.created_at, event.message)
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print(checkpoint.id, checkpoint.step_number)


if __name__ == "__main__":
    main()
