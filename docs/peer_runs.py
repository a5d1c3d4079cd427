"""Trains GRPO and DAPO on the demo's problems, so that there is something to compare with.

`.venv/bin/python docs/peer_runs.py`, after `make demo` and while the platform is up.
"""

from __future__ import annotations

import os

from rich.console import Console

from client.connection import connect
from client.demo import job_body
from client.watching import watch_job
from stapo_core.presets import DEMO_TRAIN


def main() -> None:
    """The demo's own request with another algorithm, one run after the other."""
    console = Console()
    with connect(os.environ) as client:
        demo = next((job for job in client.list_jobs(limit=100)["data"] if job["suffix"] == "demo"), None)
        if demo is None:
            raise SystemExit("There is no run named `demo`: run `make demo` first.")
        for kind in ("grpo", "dapo"):
            body = job_body(demo["training_file"], demo["validation_file"]) | {"suffix": kind}
            body["method"]["reinforcement"]["config"] = DEMO_TRAIN | {"algorithm": {"kind": kind}}
            watch_job(client, client.create_job(body)["id"], console)


if __name__ == "__main__":
    main()
