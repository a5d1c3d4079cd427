"""What is on record of a job besides its numbers: its manifest, its log, and several jobs side by side."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from api.lifecycle import JobState
from api.schemas.watching import MetricsPoint
from api.schemas.wire import Wire, epoch
from api.store.tables import Checkpoint, File, Job


class LogText(Wire):
    """A stretch of the trainer's log, in whole lines."""

    object: Literal["fine_tuning.job.log"] = "fine_tuning.job.log"
    text: str
    offset: int
    """The byte at which it begins."""
    next_offset: int
    """The byte at which the next stretch begins."""
    num_bytes: int
    """The length of the log by now."""
    has_more: bool


class FileDigest(Wire):
    """A file that a job was made from."""

    id: str
    filename: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, row: File) -> FileDigest:
        """The digest of a row."""
        return cls(id=row.id, filename=row.filename, bytes=row.bytes, sha256=row.sha256)


class CheckpointDigest(Wire):
    """A checkpoint in one line."""

    id: str
    step: int
    final: bool
    bytes: int
    sha256: str
    """Of the list of its files with their digests, as canonical JSON."""

    @classmethod
    def of(cls, row: Checkpoint) -> CheckpointDigest:
        """The digest of a row."""
        size = sum(file["bytes"] for file in row.files)
        return cls(id=row.id, step=row.step, final=row.final, bytes=size, sha256=digest(row.files))


class Manifest(Wire):
    """All that is needed to do a run again, and to know that it is the same one."""

    object: Literal["fine_tuning.job.manifest"] = "fine_tuning.job.manifest"
    fine_tuning_job_id: str
    created_at: int
    model: str
    base_checkpoint: str | None
    seed: int
    num_steps: int
    method: dict[str, Any]
    """Resolved."""
    config_sha256: str
    """Of the resolved config as canonical JSON: sorted keys, no spaces."""
    grader_sha256: str
    training_file: FileDigest
    validation_file: FileDigest | None
    service_version: str
    device: str | None
    """Where the newest attempt runs; null before the first."""
    num_parameters: int | None
    versions: dict[str, str]
    """Of Python and the libraries that the trainer computes with."""
    attempts: int
    checkpoints: list[CheckpointDigest]


class JobSeries(Wire):
    """The points of one of several jobs."""

    fine_tuning_job_id: str
    name: str | None
    model: str
    suffix: str | None
    algorithm: str
    state: JobState
    num_points: int
    """Before thinning."""
    data: list[MetricsPoint]


class Comparison(Wire):
    """The same keys of several jobs, in the order asked for."""

    object: Literal["list"] = "list"
    keys: list[str]
    data: list[JobSeries]


def digest(value: Any) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def job_manifest(
    job: Job,
    *,
    files: dict[str, File],
    started: dict[str, Any],
    checkpoints: list[Checkpoint],
    service_version: str,
) -> Manifest:
    """The manifest of a job; `started` is what its newest trainer said of itself."""
    reinforcement = job.method["reinforcement"]
    validation_file = files.get(job.validation_file) if job.validation_file else None
    return Manifest(
        fine_tuning_job_id=job.id,
        created_at=epoch(job.created_at),
        model=job.model,
        base_checkpoint=job.base_checkpoint,
        seed=job.seed,
        num_steps=job.num_steps,
        method=job.method,
        config_sha256=digest(reinforcement["config"]),
        grader_sha256=digest(reinforcement["grader"]),
        training_file=FileDigest.of(files[job.training_file]),
        validation_file=FileDigest.of(validation_file) if validation_file else None,
        service_version=service_version,
        device=started.get("device"),
        num_parameters=started.get("num_parameters"),
        versions=started.get("versions", {}),
        attempts=job.fence,
        checkpoints=[CheckpointDigest.of(row) for row in checkpoints],
    )
