from __future__ import annotations

import os
import subprocess
import sys

from api.settings import Settings

WORKER = ("celery", "-A", "worker.celery_app", "worker", "--pool", "threads", "--without-gossip", "--without-mingle")


def test_a_celery_worker_has_a_thread_for_each_slot(settings: Settings) -> None:
    told = {"HOME": settings.home, "DATABASE_URL": settings.database_url, "BROKER_URL": settings.broker_url}
    environment = (
        os.environ | {f"STAPO_{name}": str(value) for name, value in told.items()} | {"STAPO_WORKER_SLOTS": "3"}
    )
    with subprocess.Popen(
        [sys.executable, "-m", *WORKER], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as worker:
        assert worker.stdout is not None
        shown = next(line for line in worker.stdout if "concurrency:" in line)
        worker.terminate()
    assert "3 (thread)" in shown
