"""The worker's Celery application as the harness starts it: its own trainer, a clock that can jump, a guard removed.

The product has no switch for any of this. What a negative control takes away is replaced here, in this process.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from api.lifecycle import JobState
from api.store import leases, metrics
from api.store.tables import Job
from tests.chaos.clock import Moved, let_jump
from worker import process, recorder
from worker.celery_app import app

__all__ = ["app"]

_TRAINER = Path(__file__).with_name("trainer.py")


def hold_without_fence(session: Session, job_id: str, fence: int) -> Job:
    """Any writer may write."""
    return session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()


def renew_without_fence(session: Session, job_id: str, fence: int, *, lease_s: float) -> JobState:
    """Any writer may go on, and prolongs the lease, whoever has it."""
    job = hold_without_fence(session, job_id, fence)
    leases.prolong_lease(session, job, lease_s=lease_s)
    return JobState(job.state)


def read_any_wish(session: Session, job_id: str, fence: int) -> JobState:
    """What the tenant wants is told to any attempt."""
    return JobState(session.scalars(select(Job.state).where(Job.id == job_id)).one())


def keep_all_metrics(session: Session, job: Job, *, above_step: int) -> int:
    """Steps that will be done again stay in the record."""
    return job.trained_tokens


def _declared(call: Callable[..., Any]) -> Callable[..., Any]:
    """Tells the audit for which attempt the rest of the transaction writes."""

    def declare(session: Session, job_id: str, fence: int, **options: Any) -> Any:
        session.execute(text("SELECT set_config('chaos.fence', :fence, true)"), {"fence": str(fence)})
        return call(session, job_id, fence, **options)

    return declare


def _remove(guard: str | None) -> None:
    if guard == "fence":
        leases.hold = hold_without_fence
        leases.renew_lease = renew_without_fence
        leases.read_wish = read_any_wish
    elif guard == "directory-fence":
        process._enter = lambda run_dir, fence: None
    elif guard == "truncation":
        metrics.truncate_metrics = keep_all_metrics


let_jump()
recorder.datetime = Moved  # type: ignore[attr-defined]
os.environ["PGOPTIONS"] = f"-c chaos.worker={socket.gethostname()}:{os.getpid()}"  # the audit asks who writes
_without = os.environ.get("CHAOS_WITHOUT")
_remove(_without)
leases.hold = _declared(leases.hold)
leases.renew_lease = _declared(leases.renew_lease)
if os.environ.get("CHAOS_TRAINER") == "chain":
    _options = [f"--without={_without}"] if _without in ("lock", "rename") else []
    process.TRAINER = (sys.executable, str(_TRAINER), *_options)
