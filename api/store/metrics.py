"""Metrics of a job: one row per step and kind, read by range, thinned without losing a spike, or followed live."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.store.events import next_seq
from api.store.tables import Job, JobEvent, StepMetrics

HEADLINES = ("reward/mean", "policy/entropy", "mask/ppm", "eval/reward_mean")
Kind = Literal["train", "evaluation"]


@dataclass(frozen=True)
class MetricsFilter:
    """Which points are wanted: kinds, keys and steps; None means all."""

    kind: Kind | None = None
    keys: Collection[str] | None = None
    from_step: int | None = None
    to_step: int | None = None


def add_metrics(
    session: Session, job: Job, kind: Kind, step: int, values: dict[str, float | None], created_at: datetime
) -> bool:
    """Adds the metrics of one step; False, and nothing changed, when they are there. The job's row must be locked."""
    if session.get(StepMetrics, (job.id, kind, step)) is not None:
        return False
    session.add(
        StepMetrics(
            job_id=job.id,
            kind=kind,
            step=step,
            seq=next_seq(job),
            fence=job.fence,
            created_at=created_at,
            values=values,
        )
    )
    return True


def truncate_metrics(session: Session, job: Job, *, above_step: int) -> int:
    """Forgets the steps that the next attempt will do again; returns the tokens trained in those that stay."""
    session.execute(delete(StepMetrics).where(StepMetrics.job_id == job.id, StepMetrics.step > above_step))
    tokens = func.sum(StepMetrics.values["tokens/trained"].as_float())
    return int(session.scalar(select(tokens).where(StepMetrics.job_id == job.id, StepMetrics.kind == "train")) or 0)


def values_at(session: Session, job: Job, step: int) -> dict[str, float | None]:
    """The headline figures of one step, for its checkpoint."""
    rows = session.scalars(select(StepMetrics.values).where(StepMetrics.job_id == job.id, StepMetrics.step == step))
    return {key: values[key] for values in rows for key in HEADLINES if key in values}


def read_metrics(session: Session, job: Job, wanted: MetricsFilter, *, max_points: int | None) -> list[StepMetrics]:
    """The points in the order of the job's sequence, at most about `max_points` of them."""
    rows = list(session.scalars(_query(job, wanted).order_by(StepMetrics.seq)))
    return thin(rows, wanted.keys, max_points) if max_points and len(rows) > max_points else rows


def read_since(session: Session, job_id: str, seq: int, *, limit: int) -> list[StepMetrics | JobEvent]:
    """Metrics and messages that follow `seq`, in the order of the job's one sequence."""
    metrics = session.scalars(
        select(StepMetrics)
        .where(StepMetrics.job_id == job_id, StepMetrics.seq > seq)
        .order_by(StepMetrics.seq)
        .limit(limit)
    )
    events = session.scalars(
        select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
    )
    merged: list[StepMetrics | JobEvent] = [*metrics, *events]
    return sorted(merged, key=lambda row: row.seq)[:limit]


def has_rows_behind(session: Session, job_id: str, seq: int, of: type[StepMetrics] | type[JobEvent]) -> bool:
    """Whether rows of kind `of` follow `seq`."""
    return session.scalar(select(of.seq).where(of.job_id == job_id, of.seq > seq).limit(1)) is not None


def count_metrics(session: Session, job: Job, wanted: MetricsFilter) -> int:
    """How many points there are before thinning."""
    return session.scalar(select(func.count()).select_from(_query(job, wanted).subquery())) or 0


def latest_values(session: Session, job_ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest values of each job, by (job id, kind)."""
    rows = session.execute(
        select(StepMetrics.job_id, StepMetrics.kind, StepMetrics.values)
        .where(StepMetrics.job_id.in_(job_ids))
        .order_by(StepMetrics.job_id, StepMetrics.kind, StepMetrics.step.desc())
        .distinct(StepMetrics.job_id, StepMetrics.kind)
    )
    return {(row.job_id, row.kind): row.values for row in rows}


def thin(rows: Sequence[StepMetrics], keys: Collection[str] | None, max_points: int) -> list[StepMetrics]:
    """Keeps the first and last row and, of each of equal stretches, the rows with the least and greatest of any key.

    Every key's extremes survive, so a spike of a single step is drawn however long the run. With K keys at most
    about `max_points` rows come back, but never fewer than two per key and stretch.
    """
    watched = sorted(keys) if keys else sorted({key for row in rows for key in row.values})
    num_stretches = max(1, max_points // (2 * max(1, len(watched))))
    kept = {0, len(rows) - 1}
    for stretch in range(num_stretches):
        window = range(stretch * len(rows) // num_stretches, (stretch + 1) * len(rows) // num_stretches)
        for key in watched:
            known = [index for index in window if rows[index].values.get(key) is not None]
            if known:
                kept.add(min(known, key=lambda index: rows[index].values[key]))
                kept.add(max(known, key=lambda index: rows[index].values[key]))
    return [rows[index] for index in sorted(kept)]


def _query(job: Job, wanted: MetricsFilter) -> Any:
    query = select(StepMetrics).where(StepMetrics.job_id == job.id)
    if wanted.kind is not None:
        query = query.where(StepMetrics.kind == wanted.kind)
    if wanted.from_step is not None:
        query = query.where(StepMetrics.step >= wanted.from_step)
    if wanted.to_step is not None:
        query = query.where(StepMetrics.step <= wanted.to_step)
    return query
