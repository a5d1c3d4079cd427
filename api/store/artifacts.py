"""Downloadable checkpoints: the rows, and the folders they stand for. A row is added only for a whole folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.errors import NotFound
from api.store.ids import CHECKPOINT, new_id
from api.store.pages import Cursor, Order, Page, read_page
from api.store.tables import Checkpoint, Job, JobEvent
from stapo_core.failpoints import failpoint
from stapo_core.folders import Rejected, link_or_copy, make_durably, read_manifest, sync, sync_all

BEST = "checkpoint/best"
"""In the metrics of a checkpoint that was the best so far when it was saved; the newest of those is the best."""


def publish_folder(
    source: Path,
    artifacts_dir: Path,
    job_id: str,
    step: int,
    *,
    files: Collection[str] = (),
    fence: int = 0,
    keep_alive: Callable[[], object] = lambda: None,
) -> None:
    """Puts a whole checkpoint folder into the artifact store: linked where the file system can, else copied.

    `fence` is that of the attempt which does so; `keep_alive` is called between pieces, and last before the folder
    appears: what it raises ends the work.

    Returns when all of it is on the disk. One that was published before its step was done again is replaced. Raises
    FileNotFoundError when the folder, or one of the `files` that it must hold, was removed, and OSError when the store
    is full or fails; nothing is left behind then.
    """
    target = folder_path(artifacts_dir, job_id, step)
    if target.exists() and _holds_the_same(target, source):
        return
    staging = target.with_name(f".tmp-{target.name}-{fence}")
    make_durably(staging.parent)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if missing := set(files) - _copy(source, staging, keep_alive):
            raise FileNotFoundError(f"{source} no longer holds {', '.join(sorted(missing))}")
        sync_all([*(path for path in staging.rglob("*") if path.is_dir()), staging])
        keep_alive()
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync(target.parent)


def add_checkpoint(session: Session, job: Job, *, step: int, final: bool, files: list[Any], metrics: Any) -> Checkpoint:
    """Adds the row of a published folder, or finds the one that is there. The job's row must be locked."""
    row = session.scalar(select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == step))
    if row is None:
        row = Checkpoint(id=new_id(CHECKPOINT), job_id=job.id, step=step, final=final, files=files, metrics=metrics)
        session.add(row)
        session.flush()
    row.final, row.metrics, row.files = final, metrics, files
    return row


def greatest_step(session: Session, job: Job) -> int:
    """The greatest step of which a checkpoint has ever been told, 0 before the first: rows may be gone, words stay."""
    told = select(func.max(JobEvent.data["step"].as_integer()))
    return session.scalar(told.where(JobEvent.job_id == job.id, JobEvent.kind == "checkpoint")) or 0


def drop_checkpoints(session: Session, job: Job, *, keep: int) -> list[int]:
    """Removes the rows of all but the newest `keep`, the best one, and those that a job begins at.

    Returns the steps removed; the folders of those may then go.
    """
    oldest = session.scalars(
        select(Checkpoint.step).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc()).offset(keep)
    ).all()
    if not oldest:
        return []
    needed = set(session.scalars(select(Job.base_step).where(Job.base_job_id == job.id)))
    marked = select(Checkpoint.step).where(Checkpoint.job_id == job.id, Checkpoint.metrics.has_key(BEST))
    needed.add(session.scalar(marked.order_by(Checkpoint.step.desc()).limit(1)))
    steps = [step for step in oldest if step not in needed]
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step.in_(steps)))
    return steps


def truncate_checkpoints(session: Session, job: Job, *, above_step: int) -> None:
    """Takes back the rows of steps that will be done again, but for those that a job begins at."""
    needed = select(Job.base_step).where(Job.base_job_id == job.id)
    rows = delete(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step > above_step)
    session.execute(rows.where(Checkpoint.step.not_in(needed)))


def remove_folders(artifacts_dir: Path, job_id: str, steps: list[int]) -> None:
    """Removes folders whose rows are gone."""
    for step in steps:
        failpoint("collecting")
        shutil.rmtree(folder_path(artifacts_dir, job_id, step), ignore_errors=True)


def find_strays(artifacts_dir: Path, job_id: str, *, kept: Collection[int]) -> list[int]:
    """Steps whose folders lie in the store without a row: a worker was killed before they went."""
    found = (int(folder.name.removeprefix("step-")) for folder in (artifacts_dir / job_id).glob("step-*"))
    return sorted(set(found) - set(kept))


def remove_drafts(artifacts_dir: Path, job_id: str) -> None:
    """Removes what workers were putting into the store when they were killed."""
    for draft in list((artifacts_dir / job_id).glob("**/.tmp-*")):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def list_checkpoints(session: Session, job: Job, *, after: str | None, limit: int, order: Order) -> Page[Checkpoint]:
    """The job's checkpoints by step."""
    step = get_checkpoint(session, job.tenant, after, param="after")[0].step if after else None
    query = select(Checkpoint).where(Checkpoint.job_id == job.id)
    return read_page(session, query, Checkpoint.step, Cursor(step, limit, order))


def all_checkpoints(session: Session, job: Job) -> Sequence[Checkpoint]:
    """Every checkpoint of the job, oldest first; a job keeps few."""
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)).all()


def newest_checkpoints(session: Session, tenant: str, *, limit: int) -> list[tuple[Checkpoint, Job]]:
    """The tenant's checkpoints with their jobs, newest first."""
    query = select(Checkpoint, Job).join(Job, Job.id == Checkpoint.job_id).where(Job.tenant == tenant)
    rows = session.execute(query.order_by(Job.number.desc(), Checkpoint.step.desc()).limit(limit))
    return [(row[0], row[1]) for row in rows]


def get_checkpoint(
    session: Session, tenant: str, checkpoint_id: str, *, param: str | None = None
) -> tuple[Checkpoint, Job]:
    """A checkpoint and its job. Raises NotFound when the tenant has no such checkpoint."""
    row = session.execute(
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Checkpoint.id == checkpoint_id, Job.tenant == tenant)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no checkpoint '{checkpoint_id}'.", code="checkpoint_not_found", param=param)
    return row[0], row[1]


def find_checkpoint(session: Session, tenant: str, job_id: str, step: int | None) -> tuple[Checkpoint, Job] | None:
    """The job's checkpoint of a step, or its final one; None when the tenant has no such."""
    row = session.execute(
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Job.tenant == tenant, Job.id == job_id)
        .where(Checkpoint.final.is_(True) if step is None else Checkpoint.step == step)
    ).one_or_none()
    return None if row is None else (row[0], row[1])


def final_checkpoint_ids(session: Session, job_ids: list[str]) -> dict[str, str]:
    """The id of each job's final checkpoint, by job id."""
    rows = session.execute(
        select(Checkpoint.job_id, Checkpoint.id).where(Checkpoint.job_id.in_(job_ids), Checkpoint.final.is_(True))
    )
    return {row.job_id: row.id for row in rows}


def find_file(checkpoint: Checkpoint, path: str) -> dict[str, Any]:
    """The entry of one file in the checkpoint's list; a path is never looked up anywhere else."""
    for entry in checkpoint.files:
        if entry["path"] == path:
            found: dict[str, Any] = entry
            return found
    known = ", ".join(sorted(entry["path"] for entry in checkpoint.files))
    raise NotFound(f"The checkpoint has no file '{path}'; it has: {known}.", code="file_not_found", param="path")


def folder_path(artifacts_dir: Path, job_id: str, step: int) -> Path:
    """Where a checkpoint lies in the artifact store."""
    return artifacts_dir / job_id / f"step-{step:06d}"


def _copy(source: Path, target: Path, keep_alive: Callable[[], object]) -> set[str]:
    """Copies the files that nobody removes meanwhile; gives their paths. Raises FileNotFoundError without a folder."""
    copied = set()
    for folder, _, names in os.walk(source, onerror=_raise):
        inside = Path(folder).relative_to(source)
        (target / inside).mkdir()
        for name in names:
            try:
                link_or_copy(source / inside / name, target / inside / name, keep_alive=keep_alive)
            except FileNotFoundError:
                if (source / inside / name).exists():  # then it is the store that lost something
                    raise
            else:
                copied.add((inside / name).as_posix())
    return copied


def _raise(error: OSError) -> None:
    raise error


def _holds_the_same(target: Path, source: Path) -> bool:
    try:
        return read_manifest(target).files == read_manifest(source).files
    except Rejected:  # the source is gone, so what was published of it stays
        return not source.exists()
