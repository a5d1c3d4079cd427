"""Checkpoints on the wire."""

from __future__ import annotations

from typing import Literal

from api.schemas.jobs import model_name
from api.schemas.wire import Wire, epoch
from api.store.tables import Checkpoint, Job


class CheckpointFileObject(Wire):
    """One file of a checkpoint."""

    path: str
    bytes: int
    sha256: str


class CheckpointObject(Wire):
    """A whole checkpoint that can be downloaded."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]
    final: bool
    bytes: int
    files: list[CheckpointFileObject]

    @classmethod
    def of(cls, row: Checkpoint, job: Job) -> CheckpointObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            created_at=epoch(row.created_at),
            fine_tuning_job_id=job.id,
            fine_tuned_model_checkpoint=f"{model_name(job)}:ckpt-step-{row.step}",
            step_number=row.step,
            metrics={"step": row.step, **row.metrics},
            final=row.final,
            bytes=sum(file["bytes"] for file in row.files),
            files=[CheckpointFileObject(**file) for file in row.files],
        )
