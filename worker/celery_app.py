"""The worker's Celery application: one task, the doorbell. Everything that must not be lost lies in the rows."""

from __future__ import annotations

from api.dispatch import build_celery
from api.settings import get_settings

app = build_celery(
    lambda: get_settings().broker_url,
    imports=("worker.tasks",),
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    # A broker that comes and goes must stop no training.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
